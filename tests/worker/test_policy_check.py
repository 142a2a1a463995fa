"""The start's check of attention policies: right ones pass, wrong ones stop the start."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.pool import LayerPages
from longspan.worker.failures import StartFailure
from longspan.worker.generation.policies import Policies, UnknownPolicy, policies_for
from longspan.worker.generation.policy_check import PAGES, policy_check
from longspan.worker.models.probe import LayerShape

GROUPED = LayerShape(6, 2, 16, 16, latent=False)
LATENT = LayerShape(6, 1, 24, 16, latent=True)


class Deaf(CpuBackend):
    """Attends to no selected page."""

    def attend_selected(
        self, query: torch.Tensor, layer: LayerPages, plan: Any, selected: Any, *, scale: float
    ) -> Attended:
        """What the rows see without selecting."""
        return self.attend(query, layer, plan.own, scale=scale)


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


def test_few_pages_are_not_checked() -> None:
    """Nothing is left out in a pool that is smaller than what is seen."""
    policy_check(Deaf(), pages(GROUPED, PAGES - 1), GROUPED.heads)


def served(default: str) -> Policies:
    """The policies of a model of four layers."""
    return policies_for(default, [GROUPED] * 4, "model", 4)


def test_the_default_is_one_that_is_served() -> None:
    """It comes first; an experiment is refused with what it lacks."""
    assert served("hierarchical").names[0] == "hierarchical"
    with pytest.raises(StartFailure, match="distilled"):
        served("hierarchical-linear")
    with pytest.raises(StartFailure, match="only full, window, hybrid, hierarchical"):
        served("linear")


def test_requests_hear_why_an_experiment_is_refused() -> None:
    """And of other names, which there are."""
    with pytest.raises(UnknownPolicy, match="distilled"):
        served("full").get("hierarchical-linear")
    with pytest.raises(UnknownPolicy, match="only full, window, hybrid, hierarchical"):
        served("full").get("linear")


def test_a_layer_in_any_frame_of_a_page_is_checked() -> None:
    """Its own pages are; which frame of a page they are in matters to block tables alone."""
    policy_check(CpuBackend(), replace(pages(GROUPED), frame=2), GROUPED.heads)
