"""The attention policies that a worker serves, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longspan.worker.attention.layout import Layout, layout
from longspan.worker.attention.policy import PRESETS, ModelPolicy
from longspan.worker.attention.policy_file import SUFFIX, read_policy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.retention import KEEP, Retention, groups, retention, widest
from longspan.worker.failures import StartFailure
from longspan.worker.models.probe import LayerShape

UNSERVED = {
    "hierarchical-linear": "is an experiment that is not served: its feature maps must be "
    "distilled from the model first; hierarchical needs none"
}
"""Names that are understood, and why they are refused."""


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
        selects: True where some policy selects pages.
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
        self.selects = any(policy.selects for policy in policies)
        self.frame_bytes = self.layout.frame_bytes(
            [shape.numbers * itemsize for shape in shapes],
            shapes[0].kv_heads,
            PAGE_TOKENS,
            [shape.four_bit_bytes for shape in shapes],
        )
        self.sizes = (*self.layout.sizes, 0) if policies[0].forgets else self.layout.sizes
        self._served = {
            policy.name: ServedPolicy(policy, self._retentions(policy, shapes, found))
            for policy in policies
        }
        self.names = tuple(self._served)

    def _retentions(
        self, policy: ModelPolicy, shapes: Sequence[LayerShape], found: Sequence[Sequence[int]]
    ) -> tuple[Retention, ...]:
        kept = [widest(_retention(policy, shapes, layer) for layer in group) for group in found]
        if len(self.sizes) > len(kept):
            kept.append(KEEP if policy.forgets else Retention(0, 0))
        return tuple(kept)

    def get(self, name: str) -> ServedPolicy:
        """The policy of this name; of no name, the first.

        Raises:
            UnknownPolicy: there is none.
        """
        served = self._served.get(name or self.names[0])
        if served is None and name in UNSERVED:
            raise UnknownPolicy(f"the attention policy {name} {UNSERVED[name]}")
        if served is None:
            known = ", ".join(self.names)
            raise UnknownPolicy(f"no attention policy is called {name!r} here, only {known}")
        return served


def policies_for(
    default: str, shapes: Sequence[LayerShape], fingerprint: str, itemsize: int
) -> Policies:
    """All presets that a worker can serve beside ``default``, which comes first.

    Raises:
        StartFailure: ``default`` is unknown, cannot be read or does not fit the model.
    """
    chosen = find_policy(default, shapes, fingerprint)
    others = [
        preset.of(len(shapes))
        for preset in PRESETS.values()
        if preset.name != chosen.name and not preset.stores
    ]
    if chosen.eight_bit or chosen.forgets:  # no bounds are kept
        others = [policy for policy in others if not policy.selects]
    return Policies([chosen, *others], shapes, itemsize)


def find_policy(name: str, shapes: Sequence[LayerShape], fingerprint: str) -> ModelPolicy:
    """The policy of this name, or in this file where the name ends in ``.json``.

    Raises:
        StartFailure: it is unknown, cannot be read or does not fit the model.
    """
    if name.endswith(SUFFIX):
        return read_policy(Path(name), layers=len(shapes), fingerprint=fingerprint)
    if name in UNSERVED:
        raise StartFailure(f"the attention policy {name} {UNSERVED[name]}")
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise StartFailure(
            f"no attention policy is called {name!r}, only {known}; a file's name ends in {SUFFIX}"
        )
    policy = PRESETS[name].of(len(shapes))
    if policy.eight_bit and any(shape.latent for shape in shapes):
        raise StartFailure(f"the attention policy {name} stores 8 bits: not for latents (MLA)")
    return policy


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
