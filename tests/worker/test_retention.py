"""What layers keep of their pages, and how pages lie in frames, against plain counting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.attention.layout import layout
from longspan.worker.attention.policy import FULL, PRESETS, Kind, LayerPolicy, ModelPolicy
from longspan.worker.attention.retention import KEEP, Retention, groups, longest, retention, widest

PAGE = 16
WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=2)
RETENTIONS = st.builds(Retention, st.integers(0, 3), st.none() | st.integers(0, 5))


@given(window=st.integers(1, 100), position=st.integers(0, 400), ahead=st.integers(0, 100))
def test_a_layers_own_window_never_reaches_a_page_that_was_dropped(
    window: int, position: int, ahead: int
) -> None:
    """The query itself and all behind it: key (i - window, i]."""
    kept = retention(FULL, window, PAGE)
    oldest = max(0, position + ahead - window + 1)
    assert oldest // PAGE not in kept.droppable(position // PAGE)
    dropped = kept.droppable(position // PAGE)
    assert len(dropped) >= (position - window) // PAGE - 1, "and no page is kept for nothing"


@given(page=st.integers(0, 50), ahead=st.integers(0, 20))
def test_a_policys_window_never_reaches_a_page_that_was_dropped(page: int, ahead: int) -> None:
    """By the definition of what it sees."""
    dropped = retention(WINDOW, None, PAGE).droppable(page)
    seen = {*range(WINDOW.prefix_pages), *range(WINDOW.first_window_page(page + ahead), page + 1)}
    assert not seen & set(dropped)


def test_what_a_layer_was_trained_with_stands_above_the_policy() -> None:
    """A sliding layer keeps its window under every policy, be it larger or smaller."""
    for preset in PRESETS.values():
        assert retention(preset.layer, 33, PAGE) == Retention(0, 2)
    assert retention(PRESETS["hybrid"].layer, None, PAGE) == KEEP


def test_layers_group_by_what_all_policies_keep_of_them() -> None:
    """Two policies that split the layers differently make three groups."""
    first = ModelPolicy("first", (FULL, FULL, WINDOW, WINDOW))
    second = ModelPolicy("second", (FULL, WINDOW, WINDOW, WINDOW))
    assert groups([first], [None] * 4, PAGE) == [[0, 1], [2, 3]]
    assert groups([first, second], [None] * 4, PAGE) == [[0], [1], [2, 3]]
    assert groups([ModelPolicy()], [None, 64, None, 64], PAGE) == [[0, 2], [1, 3]]


@given(st.lists(RETENTIONS, min_size=1, max_size=4), st.integers(0, 60))
def test_the_widest_keeps_what_any_keeps(retentions: list[Retention], page: int) -> None:
    """Nothing is dropped that one of them needs."""
    dropped = set(widest(retentions).droppable(page))
    assert all(dropped <= set(one.droppable(page)) for one in retentions)


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    frames=st.integers(0, 300),
    data=st.data(),
)
def test_the_longest_sequence_fits_and_one_page_more_does_not(
    sizes: list[int], frames: int, data: st.DataObject
) -> None:
    """Counted page by page."""
    kept = data.draw(st.lists(RETENTIONS, min_size=len(sizes), max_size=len(sizes)))

    def held(pages: int) -> int:
        return sum(s * r.held_pages(pages) for s, r in zip(sizes, kept, strict=True))

    pages = longest(sizes, frames, kept)
    assert held(pages) <= frames
    if not all(one.drops for one in kept):
        ends = [one.held_pages(10**9) for one in kept if one.drops]
        assert held(pages + 1) > frames or pages < max(ends, default=0)


@given(
    counts=st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=4),
    itemsize=st.sampled_from([2, 4]),
)
def test_no_two_layers_lie_in_one_place(counts: list[tuple[int, bool]], itemsize: int) -> None:
    """Each is in a frame of its own group, and little of any group's frames is empty."""
    layers = iter(range(100))
    found = [[next(layers) for _ in range(count)] for count, _ in counts]
    eight_bit = {x for group, (_, small) in zip(found, counts, strict=True) if small for x in group}
    lying = layout(found, eight_bit, itemsize=itemsize)
    assert len(set(lying.places)) == len(lying.places) == sum(count for count, _ in counts)
    first = 0
    for group, size in zip(found, lying.sizes, strict=True):
        for layer in group:
            place = lying.places[layer]
            assert first <= place.frame < first + size
            assert place.slot < lying.slots
            assert place.part < (itemsize if layer in eight_bit else 1)
        first += size
    for size, (count, small) in zip(lying.sizes, counts, strict=True):
        least = -(-count // (itemsize if small else 1))
        assert least <= size * lying.slots <= least * 7 / 6


def test_a_model_of_one_kind_of_layers_lies_in_one_frame() -> None:
    """Then pages and frames are the same, as they were before there were frames."""
    lying = layout([list(range(28))])
    assert (lying.slots, lying.sizes) == (28, (1,))


def test_lean_takes_a_seventh_of_a_page_for_each_of_two_groups() -> None:
    """28 layers in bfloat16: 8 in 8 bits take the room of 4, 20 others five times as much."""
    lying = layout([list(range(8)), list(range(8, 28))], set(range(8)), itemsize=2)
    assert (lying.slots, lying.sizes) == (4, (1, 5))


def test_few_frames_are_worth_an_empty_slot() -> None:
    """28 layers of a 7B model: 7 in 8 bits take 4 slots, 21 others 24, in 7 frames for 25."""
    lying = layout([list(range(7)), list(range(7, 28))], set(range(7)), itemsize=2)
    assert (lying.slots, lying.sizes) == (4, (1, 6))
