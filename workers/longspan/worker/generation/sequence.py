"""One sequence: its tokens, its pages, and the moves it can make.

    OPEN ──SEAL──▶ SEALED               the prompt is complete
    SEALED ──SAMPLE──▶ DECODING         the first token, or the first after a preemption
    DECODING ──SAMPLE──▶ DECODING
    OPEN ──PREEMPT──▶ OPEN              its pages are gone, what it knew is computed again
    SEALED ──PREEMPT──▶ SEALED
    DECODING ──PREEMPT──▶ SEALED        prompt and output are read like one prompt
    OPEN, SEALED, DECODING ──DOOM──▶ DOOMED       it ends when the running step is over
    OPEN, SEALED, DECODING, DOOMED ──CANCEL──▶ CANCELLED
    OPEN, SEALED, DECODING, DOOMED ──FAIL──▶ FAILED
    SEALED, DECODING, DOOMED ──FINISH──▶ FINISHED

``MOVES`` is the whole truth; a move that is not in it raises ``IllegalMove``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

from longspan.worker.generation.buffer import Buffer
from longspan.worker.generation.limits import HEAD_START_S, SHORT_TOKENS, WEIGHTS
from longspan.worker.generation.outcomes import Ending
from longspan.worker.generation.plan import SequenceId
from longspan.worker.kv.chain import KeySpace, PageKey, child


class IllegalMove(Exception):
    """The caller's code asked for a move that the state does not allow."""


class SequenceState(Enum):
    """Where a sequence stands; FINISHED, CANCELLED and FAILED are terminal."""

    OPEN = auto()
    SEALED = auto()
    DECODING = auto()
    DOOMED = auto()
    FINISHED = auto()
    CANCELLED = auto()
    FAILED = auto()


class Move(Enum):
    """What can happen to a sequence."""

    SEAL = auto()
    SAMPLE = auto()
    PREEMPT = auto()
    DOOM = auto()
    FINISH = auto()
    CANCEL = auto()
    FAIL = auto()


MOVES: Mapping[tuple[SequenceState, Move], SequenceState] = {
    (SequenceState.OPEN, Move.SEAL): SequenceState.SEALED,
    (SequenceState.OPEN, Move.PREEMPT): SequenceState.OPEN,
    (SequenceState.OPEN, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.OPEN, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.OPEN, Move.FAIL): SequenceState.FAILED,
    (SequenceState.SEALED, Move.SAMPLE): SequenceState.DECODING,
    (SequenceState.SEALED, Move.PREEMPT): SequenceState.SEALED,
    (SequenceState.SEALED, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.SEALED, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.SEALED, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.SEALED, Move.FAIL): SequenceState.FAILED,
    (SequenceState.DECODING, Move.SAMPLE): SequenceState.DECODING,
    (SequenceState.DECODING, Move.PREEMPT): SequenceState.SEALED,
    (SequenceState.DECODING, Move.DOOM): SequenceState.DOOMED,
    (SequenceState.DECODING, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.DECODING, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.DECODING, Move.FAIL): SequenceState.FAILED,
    (SequenceState.DOOMED, Move.FINISH): SequenceState.FINISHED,
    (SequenceState.DOOMED, Move.CANCEL): SequenceState.CANCELLED,
    (SequenceState.DOOMED, Move.FAIL): SequenceState.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SequenceSpec:
    """What a sequence is opened with.

    Attributes:
        keys: whose pages it may share.
        prompt: uint32 [n], the first tokens of the prompt; more may follow until it is sealed.
        delivered: uint32 [n], output of an earlier worker; the sequence goes on behind it.
        max_tokens: output tokens, delivered ones included; 0 only reads the prompt.
        priority: 1 batch, 2 normal, 3 interactive; anything else counts as normal.
        deadline_s: when it fails, in the scheduler's time; None is never.
    """

    sequence_id: SequenceId
    keys: KeySpace
    prompt: npt.NDArray[np.uint32]
    sealed: bool
    delivered: npt.NDArray[np.uint32]
    max_tokens: int
    priority: int
    deadline_s: float | None = None


class Sequence:
    """What the scheduler knows of one sequence. It starts OPEN and without tokens.

    Attributes:
        state: moved by ``move`` alone.
        tokens: prompt, delivered and sampled tokens, as far as they are known.
        block_table: its pages, in the order of its positions.
        prompt_tokens: tokens of the prompt so far.
        output_tokens: delivered and sampled tokens.
        computed: positions whose KV is in its pages.
        borrowed: of those, positions whose page was taken from the cache.
        own: what was ever computed for it lies within these positions; the rest of a prompt may
            count as cached, even after a preemption.
        cached_tokens: prompt tokens found in cached pages.
        rank: who goes first; the smaller one. Age and priority in one number of seconds.
        resume_pages: pages that must be free before it goes on, after a preemption.
        parked: it was evicted while it waited for its client, who has not gone on since.
        last_step: the step that decoded its last token.
        reported_tokens: what was last said about its prefill.
        ending: how it ends, once it is DOOMED.
    """

    def __init__(self, spec: SequenceSpec, page_tokens: int, now: float, serial: int) -> None:
        self.spec = spec
        self.page_tokens = page_tokens
        self.serial = serial
        self.state = SequenceState.OPEN
        self.tokens: Buffer[np.uint32] = Buffer(np.uint32)
        self.block_table: Buffer[np.int32] = Buffer(np.int32)
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.computed = 0
        self.borrowed = 0
        self.own = range(0)
        self.cached_tokens = 0
        self.resume_pages = 0
        self.parked = False
        self.last_step = 0
        self.reported_tokens = 0
        self.ending: Ending | None = None
        self.rank = (0.0, serial)
        self._keys: list[PageKey] = []
        self.arrive(now)

    @property
    def sequence_id(self) -> SequenceId:
        """The stream's name for it."""
        return self.spec.sequence_id

    @property
    def weight(self) -> int:
        """Its share among long prefills."""
        return WEIGHTS.get(self.spec.priority, WEIGHTS[2])

    @property
    def target(self) -> int:
        """Positions that may be computed now.

        The last token known is kept back while more may follow: if none does, its logits
        are wanted, and it is computed only once.
        """
        keeps_back = self.state is SequenceState.OPEN and self.samples
        return max(len(self.tokens) - keeps_back, 0)

    @property
    def samples(self) -> bool:
        """True where the prompt is read in order to generate."""
        return self.spec.max_tokens > 0

    @property
    def pending(self) -> int:
        """Tokens that could be computed now."""
        return self.target - self.computed

    def can_go_on(self, free_pages: int) -> bool:
        """True where it may be computed, if others let it; one that is parked asks nobody."""
        return self.pending > 0 and not (self.parked and self.resume_pages > free_pages)

    @property
    def is_waiting(self) -> bool:
        """True while its client has to go on before it matters when it is computed."""
        return self.pending == 0 or self.parked

    @property
    def page(self) -> int:
        """Index of the page that it computes next."""
        return self.computed // self.page_tokens

    @property
    def is_within_page(self) -> bool:
        """True where a part of that page is computed."""
        return self.computed % self.page_tokens > 0

    @property
    def is_short(self) -> bool:
        """True where its prefill costs little: what is known of it, less what was cached."""
        return len(self.tokens) - self.borrowed <= SHORT_TOKENS

    def move(self, move: Move) -> None:
        """Apply one move.

        Raises:
            IllegalMove: the state does not allow it.
        """
        state = MOVES.get((self.state, move))
        if state is None:
            raise IllegalMove(f"{move.name} in {self.state.name}")
        self.state = state

    def arrive(self, now: float) -> None:
        """Take its place among the others: by age, with a head start for priority."""
        priority = self.spec.priority if self.spec.priority in WEIGHTS else 2
        self.rank = (now - HEAD_START_S * priority, self.serial)

    def read(self, tokens: npt.NDArray[np.uint32]) -> None:
        """Append to the prompt."""
        self.tokens.extend(tokens)
        self.prompt_tokens += len(tokens)
        self.parked &= len(tokens) == 0

    def seal(self) -> None:
        """Complete the prompt; delivered tokens follow it."""
        self.move(Move.SEAL)
        self.parked = False
        self.tokens.extend(self.spec.delivered)
        self.output_tokens = len(self.spec.delivered)

    def push(self, token: int) -> None:
        """Append a sampled token."""
        self.move(Move.SAMPLE)
        self.tokens.append(token)
        self.output_tokens += 1

    def pages_for(self, positions: int) -> int:
        """Pages that hold so many positions."""
        return -(-positions // self.page_tokens)

    def page_known(self, page: int) -> bool:
        """True where all tokens of a page are known."""
        return (page + 1) * self.page_tokens <= len(self.tokens)

    def page_borrowable(self, page: int) -> bool:
        """True where a page may come from the cache: not the one with a token to sample from."""
        return (page + 1) * self.page_tokens <= len(self.tokens) - self.samples

    def key(self, page: int) -> PageKey:
        """The chain key of a page whose tokens are known."""
        while len(self._keys) <= page:
            start = len(self._keys) * self.page_tokens
            parent = self._keys[-1] if self._keys else self.spec.keys.root()
            tokens = self.tokens.view(start, start + self.page_tokens)
            self._keys.append(child(parent, tokens.astype("<u4", copy=False).tobytes()))
        return self._keys[page]

    def borrow(self, page: int) -> None:
        """Take a cached page for the one that would be computed next, and stand behind it."""
        self.computed -= self.computed % self.page_tokens
        self.block_table.append(page)
        start, end = self.computed, self.computed + self.page_tokens
        prompt = range(start, min(end, self.prompt_tokens))
        twice = range(max(start, self.own.start), min(prompt.stop, self.own.stop))
        self.cached_tokens += len(prompt) - len(twice)
        self.borrowed += self.page_tokens
        self.computed = end

    def advance(self, end: int) -> None:
        """Have computed the positions up to ``end``."""
        start = min(self.computed, self.own.start) if self.own else self.computed
        self.own = range(start, max(end, self.own.stop))
        self.computed = end

    def evict(self) -> None:
        """Lose all pages; what is known is computed again."""
        self.move(Move.PREEMPT)
        self.block_table.clear()
        self.computed = self.borrowed = self.cached_tokens = 0
