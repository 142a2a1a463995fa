"""The start's check of attention policies: right ones pass, wrong ones stop the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.host_slots import HostSlots
from longspan.worker.attention.linear.hedgehog import Hedgehog, features
from longspan.worker.attention.linear.page_sums import PageSums, make_page_sums, page_bytes
from longspan.worker.attention.policy import LINEAR, PRESETS
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.failures import StartFailure
from longspan.worker.generation.attention_maps import ServedMaps
from longspan.worker.generation.policies import Policies, UnknownPolicy, policies_for
from longspan.worker.generation.policy_check import PAGES, policy_check
from longspan.worker.models.probe import LayerShape

GROUPED = LayerShape(6, 2, 16, 16, latent=False)
LATENT = LayerShape(6, 1, 24, 16, latent=True)
MANY = LayerShape(12, 2, 16, 16, latent=False)


class Deaf(CpuBackend):
    """Attends to no selected page."""

    def attend_selected(
        self, query: torch.Tensor, layer: LayerPages, plan: Any, selected: Any, *, scale: float
    ) -> Attended:
        """What the rows see without selecting."""
        return self.attend(query, layer, plan.own, scale=scale)


class Mistaken(HostPages):
    """Copies other pages from the host than were chosen."""

    def bring(self, selected: torch.Tensor) -> torch.Tensor:
        """The page before each."""
        return HostPages.bring(self, (selected - 1).clamp(min=0))


def hosted(kind: type[HostPages] = HostPages, *, frames: int = PAGES) -> HostPages:
    """A pool of one layer whose far pages lie on the host, with slots for one page."""
    layer = pages(GROUPED, frames + 1)
    return kind(
        layer.keys,
        layer.values,
        GROUPED.bounds(PAGES, torch.float32, torch.device("cpu")),
        host_keys=torch.empty(PAGES, *layer.keys.shape[1:]),
        host_values=torch.empty(PAGES, *layer.values.shape[1:]),
        slots=HostSlots(frames, 1, GROUPED.kv_heads, PAGES),
    )


def pages(shape: LayerShape, count: int = PAGES) -> LayerPages:
    """A pool of one layer."""
    return shape.pages(count, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("shape", [GROUPED, LATENT], ids=["grouped", "latent"])
def test_what_is_right_passes(shape: LayerShape) -> None:
    """Grouped heads and MLA's latents."""
    policy_check(CpuBackend(), pages(shape), shape.heads)


def test_what_is_wrong_stops_the_start() -> None:
    """The message names the policy."""
    with pytest.raises(StartFailure, match="hybrid attention differs"):
        policy_check(Deaf(), pages(GROUPED), GROUPED.heads)


@pytest.mark.parametrize("shape", [GROUPED, LATENT], ids=["grouped", "latent"])
def test_copies_that_say_something_else_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, shape: LayerShape
) -> None:
    """Where a policy selects by keys in 4 bits, such a layer is checked too."""
    layer = replace(pages(shape), four_bit=shape.four_bit(PAGES, torch.device("cpu")))
    policy_check(CpuBackend(), layer, shape.heads)
    name = "longspan.worker.attention.four_bit_keys.FourBitKeys.write"
    monkeypatch.setattr(name, lambda copies, slots, keys: None)
    assert layer.four_bit is not None
    layer.four_bit.means.zero_()
    layer.four_bit.scales.zero_()
    with pytest.raises(StartFailure, match="hybrid attention differs"):
        policy_check(CpuBackend(), layer, shape.heads)


def test_a_far_state_that_counts_twice_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selected pages must not be far ones too."""
    monkeypatch.setattr(
        "longspan.worker.attention.far_pages.Lane.hidden",
        lambda lane, selected: torch.zeros(selected.shape[1], *lane.pages.shape, dtype=torch.bool),
    )
    with pytest.raises(StartFailure, match="hierarchical attention differs"):
        policy_check(CpuBackend(), pages(GROUPED), GROUPED.heads)


def test_pages_on_the_host_are_checked() -> None:
    """With the few slots that a small pool has; one that is too small is not."""
    policy_check(CpuBackend(), hosted(), GROUPED.heads)
    policy_check(CpuBackend(), hosted(Mistaken, frames=PAGES - 1), GROUPED.heads)
    with pytest.raises(StartFailure, match="hybrid attention differs"):
        policy_check(CpuBackend(), hosted(Mistaken), GROUPED.heads)


def test_few_pages_are_not_checked() -> None:
    """Nothing is left out in a pool that is smaller than what is seen."""
    policy_check(Deaf(), pages(GROUPED, PAGES - 1), GROUPED.heads)


@pytest.mark.parametrize("shape", [GROUPED, LATENT, MANY], ids=["grouped", "latent", "many"])
def test_linear_far_states_are_checked_too(shape: LayerShape) -> None:
    """Also where a kv head has more heads than are looked at; wrong ones stop the start."""
    maps = Hedgehog(shape.heads, shape.kv_heads, shape.d).requires_grad_(False)
    maps.factor_bias.add_(torch.arange(shape.heads) / 2)
    layer = pages(shape)
    sums = make_page_sums(maps, layer.keys, layer.values, scale=0.3)
    policy_check(CpuBackend(), replace(layer, page_sums=sums), shape.heads)
    wrong = Forgetful(sums.maps, sums.sums, sums.scale)
    with pytest.raises(StartFailure, match="hierarchical attention differs"):
        policy_check(CpuBackend(), replace(layer, page_sums=wrong), shape.heads)


class Forgetful(PageSums):
    """Adds a page to nothing."""

    def write(
        self, slots: torch.Tensor, before: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """As if each page were the first."""
        super().write(slots, torch.full_like(before, -1), keys, values)


MAPS = ServedMaps({layer: Hedgehog(6, 2, 16) for layer in range(4)}, "cd" * 32)


def served(default: str, maps: ServedMaps | None = None) -> Policies:
    """The policies of a model of four layers."""
    return policies_for(default, [GROUPED] * 4, "model", 4, maps)


def test_the_default_is_one_that_is_served() -> None:
    """It comes first; an experiment is refused with the option that it lacks."""
    assert served("hierarchical").names[0] == "hierarchical"
    with pytest.raises(StartFailure, match=r"distilled from the model \(--attention-maps FILE\)"):
        served("hierarchical-linear")
    with pytest.raises(StartFailure, match="only full, window, hybrid, hierarchical"):
        served("linear")


def test_requests_hear_why_an_experiment_is_refused() -> None:
    """And of other names, which there are."""
    with pytest.raises(UnknownPolicy, match=r"experiment .*--attention-maps FILE"):
        served("full").get("hierarchical-linear")
    with pytest.raises(UnknownPolicy, match="only full, window, hybrid, hierarchical"):
        served("full").get("linear")


def test_a_layer_in_any_frame_of_a_page_is_checked() -> None:
    """Its own pages are; which frame of a page they are in matters to block tables alone."""
    policy_check(CpuBackend(), replace(pages(GROUPED), frame=2), GROUPED.heads)


def test_with_maps_the_experiment_is_served_beside_the_presets() -> None:
    """Or before them; its pages are those of these maps alone."""
    beside, first = served("full", MAPS), served("hierarchical-linear", MAPS)
    assert beside.names[-1] == first.names[0] == "hierarchical-linear"
    assert set(beside.names) == set(first.names)
    policy = first.get("").policy
    assert policy == beside.get("hierarchical-linear").policy
    assert policy.linear_layers == beside.linear == first.linear == {1, 2, 3}
    other = replace(policy, maps="ef" * 32)
    assert MAPS.digest in policy.identity()
    assert policy.identity() != other.identity() != LINEAR.of(4).identity()
    assert served("full").linear == frozenset()


def test_a_policy_of_ones_own_may_have_linear_far_states(tmp_path: Path) -> None:
    """It needs maps as well."""
    path = tmp_path / "mine.json"
    write_policy(path, PolicyFile("mine", (LINEAR.layer,) * 4))
    with pytest.raises(StartFailure, match=r"the attention policy mine .*--attention-maps FILE"):
        served(str(path))
    mine = served(str(path), MAPS)
    assert mine.linear == {0, 1, 2, 3}
    assert MAPS.digest in mine.get("mine").policy.identity()
    write_policy(path, PolicyFile("hierarchical-linear", (PRESETS["window"].layer,) * 4))
    with pytest.raises(StartFailure, match="the name of a preset"):
        served(str(path))


def test_maps_that_nothing_uses_are_refused() -> None:
    """Beside a policy that decides what is stored no pages are selected."""
    with pytest.raises(StartFailure, match=r"--attention-maps: no layer .* beside lean"):
        served("lean", MAPS)


def test_every_frame_has_room_for_the_states_of_its_pages() -> None:
    """They are KV memory of each page, whoever uses it; layers of one slot share their room."""
    plain, mapped = served("full"), served("full", MAPS)
    one = page_bytes(2, features(16), 16)
    assert one == 2 * 32 * 17 * 4
    assert mapped.sizes == plain.sizes == (1,)
    assert mapped.frame_bytes == plain.frame_bytes + 3 * one
    windowed = [GROUPED._replace(window=100), GROUPED] * 2
    apart = policies_for("full", windowed, "model", 4, MAPS)
    assert apart.linear == {1, 3}, "a layer's own window stands above every policy"
    assert apart.layout.slots == 2
    assert apart.frame_bytes == 2 * PAGE_TOKENS * GROUPED.numbers * 4 + 2 * one
