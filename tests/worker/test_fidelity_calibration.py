"""Which layers get a window: by what it would lose in them."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.attention.policy import FULL, PRESETS, Kind, LayerPolicy
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.calibrating import (
    check_length,
    far_depths,
    shortness,
    window_tokens,
)
from longspan.worker.fidelity.calibration import Choice, LayerLoss, chosen, described, ranking
from longspan.worker.fidelity.options import count_or_share, positive, several, share

WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=2)
LOSSES = [
    LayerLoss((0.01, 0.02), (0.01, 0.02)),
    LayerLoss((0.0, 0.6), (0.0, 0.9)),
    LayerLoss((0.2, 0.1), (0.3, 0.2)),
    None,
]
numbers = st.floats(0, 1)
losses = st.lists(
    st.none()
    | st.lists(st.tuples(numbers, numbers), min_size=1, max_size=3).map(
        lambda pairs: LayerLoss(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))
    ),
    max_size=12,
)


def kinds(choice: Choice) -> str:
    """First letters of the layers' kinds."""
    return "".join(str(layer.kind)[0] for layer in chosen(LOSSES, choice))


def test_layers_whose_heads_keep_enough_get_a_window() -> None:
    """A layer needs the document where one kv head does; its own window stays its own."""
    assert kinds(Choice(window=WINDOW)) == "wfff"
    assert kinds(Choice(window=WINDOW, keep_mass=0.7)) == "wfwf"
    assert kinds(Choice(window=WINDOW, keep_mass=0.3)) == "wwwf"
    assert kinds(Choice(window=WINDOW, keep_mass=0.995)) == "ffff"


def test_so_many_layers_as_are_asked_for_see_everything() -> None:
    """Those that lose most, by count or by share of those that have a choice."""
    assert kinds(Choice(window=WINDOW, full_layers=0)) == "wwwf"
    assert kinds(Choice(window=WINDOW, full_layers=1)) == "wfwf"
    assert kinds(Choice(window=WINDOW, full_layers=0.5)) == "wfff"
    assert kinds(Choice(window=WINDOW, full_layers=1.0)) == "ffff"
    hybrid = Choice(window=WINDOW, kept=PRESETS["hybrid"].layer, full_layers=1)
    assert kinds(hybrid) == "whwf"


def test_a_layer_is_ranked_by_looks_that_change_its_output() -> None:
    """Mass on keys whose values say nothing new is no loss, nor is an error without mass."""
    assert ranking(LOSSES) == [1, 2, 0]
    harmless, harmful = LayerLoss((0.9,), (0.0,)), LayerLoss((0.3,), (0.3,))
    assert ranking([harmless, harmful]) == [1, 0]


@given(losses, st.floats(0, 1), st.integers(0, 14))
def test_every_layer_is_chosen_for_by_the_rules(
    found: list[LayerLoss | None], keep: float, count: int
) -> None:
    """One policy a layer; more is kept where more must be; the worst layers first."""
    free = [loss for loss in found if loss is not None]
    by_mass = chosen(found, Choice(window=WINDOW, keep_mass=keep))
    stricter = chosen(found, Choice(window=WINDOW, keep_mass=min(1.0, keep + 0.1)))
    assert all(more == FULL or less == WINDOW for less, more in zip(by_mass, stricter, strict=True))
    by_count = chosen(found, Choice(window=WINDOW, full_layers=count))
    assert len(by_count) == len(found)
    assert by_count.count(WINDOW) == max(0, len(free) - count)
    kept = [x.loss for x, layer in zip(found, by_count, strict=True) if x and layer == FULL]
    left = [x.loss for x, layer in zip(found, by_count, strict=True) if x and layer == WINDOW]
    assert not kept or not left or min(kept) >= max(left)


def test_the_numbers_are_written_down_by_layer_and_kv_head() -> None:
    first, second, _, own = described(LOSSES, 0.95)
    assert first["needs_document"] == [False, False]
    assert second == {
        "loss": 0.73485,
        "lost_mass": [0.0, 0.6],
        "output_error": [0.0, 0.9],
        "needs_document": [False, True],
    }
    assert own == {"own_window": True}


def test_layers_are_asked_for_by_count_or_share() -> None:
    """A point makes it a share, so that 1 is one layer and 1.0 all of them."""
    for text, value in (("7", 7), ("0", 0), ("0.25", 0.25), ("1", 1), ("1.0", 1.0)):
        found = count_or_share(text)
        assert (found, type(found)) == (value, type(value))
    for text in ("-1", "1.5", "-0.5", "nan.", "all"):
        with pytest.raises((ValueError, ArgumentTypeError)):
            count_or_share(text)


def test_lists_have_every_value_once() -> None:
    assert several(positive)("4096, 1024,4096") == (4096, 1024)
    assert several(share)("0,1.0,0.5") == (0.0, 1.0, 0.5)
    for text in ("0", "1,", "x"):
        with pytest.raises((ValueError, ArgumentTypeError)):
            several(positive)(text)


def test_a_text_that_tells_nothing_is_refused_and_one_that_tells_little_is_named() -> None:
    seen = window_tokens(WINDOW)
    assert seen == 1024
    with pytest.raises(StartFailure, match="2047 tokens are too short to tell"):
        check_length(WINDOW, 2 * seen - 1)
    check_length(WINDOW, 2 * seen)
    assert "2.0 times what the window sees" in (shortness(WINDOW, 2 * seen) or "")
    assert shortness(WINDOW, 8 * seen) is None


def test_a_number_that_the_window_sees_tells_nothing() -> None:
    assert far_depths(WINDOW, 4096, (0.0, 0.05, 0.1, 0.5, 0.7, 0.76, 1.0)) == (0.1, 0.5, 0.7)
    with pytest.raises(StartFailure, match=r"between 0\.06 and 0\.75"):
        far_depths(WINDOW, 4096, (0.9,))
