"""The attention policies that a worker serves, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from longspan.worker.attention.layout import Layout, layout
from longspan.worker.attention.linear.hedgehog import features
from longspan.worker.attention.linear.page_sums import page_bytes
from longspan.worker.attention.policy import LINEAR, PRESETS, Far, ModelPolicy
from longspan.worker.attention.policy_file import SUFFIX, read_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.retention import KEEP, Retention, groups, retention, widest
from longspan.worker.failures import StartFailure
from longspan.worker.generation.attention_maps import OPTION, ServedMaps
from longspan.worker.models.probe import LayerShape

UNMAPPED = (
    f"has linear far states, an experiment that needs feature maps distilled from the model "
    f"({OPTION} FILE); hierarchical needs none"
)
"""Why a policy is refused."""


class UnknownPolicy(ValueError):
    """A request names a policy that is not served."""


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """A policy, and what it needs of a sequence's pages.

    Attributes:
        retentions: one for each group of layers.
    """

    policy: ModelPolicy
    retentions: tuple[Retention, ...]


class Policies:
    """The policies of one model; the first is that of requests that name none.

    Args:
        policies: no two of one name.
        shapes: of the model's layers.
        itemsize: bytes of a stored number.

    Attributes:
        names: in this order.
        layout: how pages lie in memory, so that every policy can give up what it does not see.
        sizes: frames of a page for each group; the last one has none where policies keep what
            stands for a page, which is found by the page's number.
        frame_bytes: of one of a page's frames.
        selects: True where some policy selects pages that lie in frames.
        hosted: layers whose far pages lie on the host.
        linear: layers that keep linear states of their pages.
    """

    def __init__(
        self, policies: Sequence[ModelPolicy], shapes: Sequence[LayerShape], itemsize: int
    ) -> None:
        eight_bit = policies[0].eight_bit
        found = _groups(policies, shapes, eight_bit)
        asked = frozenset[int]().union(*(policy.four_bit for policy in policies))
        # A layer with a window of its own selects nothing.
        four_bit = [layer for layer in asked if shapes[layer].window is None]
        self.layout: Layout = layout(found, eight_bit, four_bit=four_bit, itemsize=itemsize)
        self.selects = any(
            layer.selects and not layer.on_host for policy in policies for layer in policy.layers
        )
        self.hosted = frozenset(
            index
            for index, shape in enumerate(shapes)
            if policies[0].layer(index).on_host and shape.window is None
        )
        self.linear = frozenset().union(*(_linear(policy, shapes) for policy in policies))
        self.frame_bytes = self.layout.frame_bytes(
            [shape.numbers * itemsize for shape in shapes],
            shapes[0].kv_heads,
            PAGE_TOKENS,
            [shape.four_bit_bytes for shape in shapes],
        ) + self._sums_bytes(shapes)
        self.sizes = (*self.layout.sizes, 0) if policies[0].numbered else self.layout.sizes
        self._served = {
            policy.name: ServedPolicy(policy, self._retentions(policy, shapes, found))
            for policy in policies
        }
        self.names = tuple(self._served)

    def _sums_bytes(self, shapes: Sequence[LayerShape]) -> int:
        """Of the linear states of one frame; every frame has room for them, whoever uses it."""
        slots = {self.layout.places[layer].slot: shapes[layer] for layer in self.linear}
        return sum(page_bytes(one.kv_heads, features(one.d), one.dv) for one in slots.values())

    def _retentions(
        self, policy: ModelPolicy, shapes: Sequence[LayerShape], found: Sequence[Sequence[int]]
    ) -> tuple[Retention, ...]:
        kept = [widest(_retention(policy, shapes, layer) for layer in group) for group in found]
        if len(self.sizes) > len(kept):
            kept.append(KEEP if policy.numbered else Retention(0, 0))
        return tuple(kept)

    def get(self, name: str) -> ServedPolicy:
        """The policy of this name; of no name, the first.

        Raises:
            UnknownPolicy: there is none.
        """
        served = self._served.get(name or self.names[0])
        if served is None and name == LINEAR.name:
            raise UnknownPolicy(f"the attention policy {name} {UNMAPPED}")
        if served is None:
            known = ", ".join(self.names)
            raise UnknownPolicy(f"no attention policy is called {name!r} here, only {known}")
        return served


def policies_for(
    default: str,
    shapes: Sequence[LayerShape],
    fingerprint: str,
    itemsize: int,
    maps: ServedMaps | None = None,
) -> Policies:
    """All presets that a worker can serve beside ``default``, which comes first.

    Args:
        maps: what linear far states need.

    Raises:
        StartFailure: ``default`` is unknown, cannot be read or does not fit the model; ``maps``
            are for no policy that is served beside it.
    """
    chosen = find_policy(default, shapes, fingerprint, maps)
    others = [
        preset.of(len(shapes))
        for preset in PRESETS.values()
        if preset.name != chosen.name and not preset.stores
    ]
    if maps is not None and chosen.name != LINEAR.name:
        others.append(_mapped(LINEAR.of(len(shapes)), shapes, maps))
    if chosen.eight_bit or chosen.numbered:  # no bounds are kept by frames
        others = [policy for policy in others if not policy.selects]
    served = Policies([chosen, *others], shapes, itemsize)
    if maps is not None and not served.linear:
        raise StartFailure(f"{OPTION}: no layer has a linear far state beside {chosen.name}")
    return served


def find_policy(
    name: str, shapes: Sequence[LayerShape], fingerprint: str, maps: ServedMaps | None = None
) -> ModelPolicy:
    """The policy of this name, or in this file where the name ends in ``.json``.

    Raises:
        StartFailure: it is unknown, cannot be read or does not fit the model.
    """
    if name.endswith(SUFFIX):
        policy = read_policy(Path(name), layers=len(shapes), fingerprint=fingerprint)
        _check_host(policy, shapes)
        _check_numbers(policy)
        return _mapped(policy, shapes, maps) if policy.linear_layers else policy
    if name == LINEAR.name:
        return _mapped(LINEAR.of(len(shapes)), shapes, maps)
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise StartFailure(
            f"no attention policy is called {name!r}, only {known}; a file's name ends in {SUFFIX}"
        )
    policy = PRESETS[name].of(len(shapes))
    if policy.eight_bit and any(shape.latent for shape in shapes):
        raise StartFailure(f"the attention policy {name} stores 8 bits: not for latents (MLA)")
    _check_host(policy, shapes)
    return policy


def _check_host(policy: ModelPolicy, shapes: Sequence[LayerShape]) -> None:
    """Refuse what keeps far pages on the host where that cannot be.

    Raises:
        StartFailure: says why.
    """
    if not any(layer.on_host for layer in policy.layers):
        return
    name = f"the attention policy {policy.name} keeps pages on the host"
    if any(shape.latent for shape in shapes):
        raise StartFailure(f"{name}: not for latents (MLA)")
    if len({shape.kv for shape in shapes}) > 1:
        raise StartFailure(f"{name}: only where the keys and values of all layers are alike")
    if policy.forgets:
        raise StartFailure(f"{name}, and means of others: a policy does one or the other")


def _check_numbers(policy: ModelPolicy) -> None:
    """Refuse what finds the far states of some layers by pages' numbers, of others by frames.

    Raises:
        StartFailure: says why.
    """
    seeing = any(one.far is not Far.NONE and not one.forgets for one in policy.layers)
    if policy.numbered and seeing:
        raise StartFailure(
            f"the attention policy {policy.name} has hierarchical layers that select pages beside "
            "layers that give their pages up (on_host, or hierarchical without selected pages)"
        )


def _linear(policy: ModelPolicy, shapes: Sequence[LayerShape]) -> frozenset[int]:
    """Layers that need maps: one with a window of its own sees no far page."""
    return frozenset(i for i in policy.linear_layers if shapes[i].window is None)


def _mapped(
    policy: ModelPolicy, shapes: Sequence[LayerShape], maps: ServedMaps | None
) -> ModelPolicy:
    if maps is None:
        raise StartFailure(f"the attention policy {policy.name} {UNMAPPED}")
    maps.check(_linear(policy, shapes))
    return replace(policy, maps=maps.digest)


def _retention(policy: ModelPolicy, shapes: Sequence[LayerShape], layer: int) -> Retention:
    return retention(policy.layer(layer), shapes[layer].window, PAGE_TOKENS)


def _groups(
    policies: Sequence[ModelPolicy], shapes: Sequence[LayerShape], eight_bit: frozenset[int]
) -> list[list[int]]:
    """Groups of layers; one of all where their pages differ in size: frames are of one size."""
    if len({shape.kv for shape in shapes}) > 1:
        if eight_bit:
            raise StartFailure("pages in 8 bits need layers whose keys and values are all alike")
        return [list(range(len(shapes)))]
    windows = [shape.window for shape in shapes]
    return groups(policies, windows, PAGE_TOKENS, apart=eight_bit)
