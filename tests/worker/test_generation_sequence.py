"""The moves of a sequence, and what it counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.generation.sequence import Sequence
from longspan.worker.generation.states import MOVES, IllegalMove, Move, SequenceState
from longspan.worker.kv.chain import child
from tests.worker.scheduling import PAGE_TOKENS, keys, spec, text

TERMINAL = {SequenceState.FINISHED, SequenceState.CANCELLED, SequenceState.FAILED}


def sequence(prompt: int, *, max_tokens: int = 4, priority: int = 2, now: float = 0.0) -> Sequence:
    """A sequence that has read its prompt and is still OPEN."""
    opened = Sequence(
        spec(1, prompt, max_tokens=max_tokens, priority=priority), PAGE_TOKENS, now, 0
    )
    opened.read(opened.spec.prompt)
    return opened


@given(st.sampled_from(SequenceState), st.sampled_from(Move))
def test_a_move_outside_the_table_raises_and_changes_nothing(
    state: SequenceState, move: Move
) -> None:
    """The table is the whole truth."""
    moved = sequence(1)
    moved.state = state
    if (state, move) in MOVES:
        moved.move(move)
        assert moved.state is MOVES[state, move]
    else:
        with pytest.raises(IllegalMove, match=f"{move.name} in {state.name}"):
            moved.move(move)
        assert moved.state is state


def test_terminal_states_allow_no_move_and_all_others_lead_to_one() -> None:
    """Every sequence can end, and only once."""
    left = {state for state, _ in MOVES}
    assert left == set(SequenceState) - TERMINAL
    assert all(MOVES[state, Move.CANCEL] is SequenceState.CANCELLED for state in left)


def test_an_open_sequence_keeps_back_its_last_token_until_it_is_sealed() -> None:
    """If nothing follows, that token's logits are wanted, and it is computed once."""
    opened = sequence(10)
    assert opened.pending == 9
    opened.seal()
    assert opened.pending == 10


def test_a_sequence_that_samples_nothing_keeps_nothing_back() -> None:
    """With ``max_tokens`` 0 the prompt is only read."""
    assert sequence(10, max_tokens=0).pending == 10
    assert sequence(0, max_tokens=0).pending == 0
    assert sequence(0).pending == 0


@given(st.integers(0, 5 * PAGE_TOKENS), st.integers(0, 5 * PAGE_TOKENS))
def test_keys_do_not_depend_on_how_the_prompt_arrived(first: int, second: int) -> None:
    """Chain keys grow with the prompt, and equal those of the whole."""
    tokens = text(first + second)
    grown = Sequence(spec(1, 0, sealed=False), PAGE_TOKENS, 0.0, 0)
    naive = [keys().root()]
    for start, end in ((0, first), (first, first + second)):
        grown.read(tokens[start:end])
        for page in range(end // PAGE_TOKENS):
            grown.key(page)
    for page in range((first + second) // PAGE_TOKENS):
        page_tokens = tokens[page * PAGE_TOKENS : (page + 1) * PAGE_TOKENS]
        naive.append(child(naive[-1], page_tokens.astype("<u4").tobytes()))
        assert grown.key(page) == naive[-1]


def test_rank_is_age_with_a_head_start_for_priority() -> None:
    """An old sequence of low priority goes before a young one of high priority."""
    assert sequence(1, priority=3, now=10.0).rank < sequence(1, priority=1, now=0.0).rank
    assert sequence(1, priority=1, now=0.0).rank < sequence(1, priority=3, now=100.0).rank
    assert sequence(1, priority=0).rank == sequence(1, priority=2).rank


def test_a_page_counts_as_cached_only_where_its_tokens_were_never_computed() -> None:
    """After a preemption, pages computed before come from the cache without being cached ones."""
    opened = sequence(4 * PAGE_TOKENS)
    opened.borrow(0)
    opened.advance(2 * PAGE_TOKENS)
    assert opened.cached_tokens == PAGE_TOKENS
    opened.evict()
    for page in range(3):
        opened.borrow(page)
    assert opened.cached_tokens == 2 * PAGE_TOKENS
    assert opened.computed == 3 * PAGE_TOKENS
