"""A buffer against a list."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.generation.buffer import Buffer


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=200), max_size=8))
def test_a_buffer_holds_what_was_added_and_its_views_stay_as_they_were(
    runs: list[list[int]],
) -> None:
    """However often it grew in between."""
    buffer = Buffer(np.uint32)
    expected: list[int] = []
    views = []
    for run in runs:
        if len(run) == 1:
            buffer.append(run[0])
        else:
            buffer.extend(np.array(run, np.uint32))
        expected += run
        views.append((buffer.view(0, len(buffer)), len(expected)))
    assert len(buffer) == len(expected)
    for view, length in views:
        assert view.tolist() == expected[:length]


def test_a_cleared_buffer_is_empty() -> None:
    """It may be filled again."""
    buffer = Buffer(np.int32)
    buffer.extend([1, 2, 3])
    buffer.clear()
    buffer.append(5)
    assert buffer.pop() == 5
    buffer.append(4)
    assert buffer.view(0, len(buffer)).tolist() == [4]
