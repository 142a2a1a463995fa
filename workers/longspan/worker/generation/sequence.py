"""One sequence: its tokens, its pages, and the moves it can make; see ``states``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.attention.retention import KEEP, Retention
from longspan.worker.attention.seen import seen_share
from longspan.worker.attention.zones import Zones
from longspan.worker.generation.buffer import Buffer
from longspan.worker.generation.limits import HEAD_START_S, SHORT_TOKENS, WEIGHTS
from longspan.worker.generation.outcomes import Ending
from longspan.worker.generation.plan import SequenceId
from longspan.worker.generation.states import MOVES, IllegalMove, Move, SequenceState
from longspan.worker.kv.chain import KeySpace, PageKey, child
from longspan.worker.kv.label import Label

HOLE = -1
"""In a block table: a page was here that nothing sees any more."""


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
        policy: what its queries see.
        retentions: what each group of layers needs of its pages, under this policy.
        task_start: tokens of the documents and of what stands before them, where the prompt is
            sealed from the start; None: all of it.
        subject: the document or upload that the prompt is about.
    """

    sequence_id: SequenceId
    keys: KeySpace
    prompt: npt.NDArray[np.uint32]
    sealed: bool
    delivered: npt.NDArray[np.uint32]
    max_tokens: int
    priority: int
    deadline_s: float | None = None
    policy: ModelPolicy = FULL_MODEL
    retentions: tuple[Retention, ...] = (KEEP,)
    task_start: int | None = None
    subject: str = ""


class Sequence:
    """What the scheduler knows of one sequence. It starts OPEN and without tokens.

    Attributes:
        state: moved by ``move`` alone.
        tokens: prompt, delivered and sampled tokens, as far as they are known.
        block_table: its pages, in the order of its positions.
        dropped: a range a group of layers: places in the block table whose page's part it holds
            no more, since nothing sees it.
        task_start: tokens before the task, once the prompt is sealed.
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
        subject: the document or upload that it is about.
        barrier: the page that it may not compute, since that one is on its way from below.
        missing_tokens: tokens before its task in pages that were computed and found nowhere.
        sought: pages that were asked about for that.
        looked: where it stood when pages below were last looked for.
        ready_s: since when it could be computed; None where nothing of it can, or a step has it.
        ending: how it ends, once it is DOOMED.
    """

    def __init__(self, spec: SequenceSpec, page_tokens: int, now: float, serial: int) -> None:
        self.spec = spec
        self.page_tokens = page_tokens
        self.serial = serial
        self.state = SequenceState.OPEN
        self.tokens: Buffer[np.uint32] = Buffer(np.uint32)
        self.block_table: Buffer[np.int32] = Buffer(np.int32)
        self.dropped = [range(0)] * len(spec.retentions)
        self.task_start: int | None = None
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
        self.subject = spec.subject
        self.barrier: int | None = None
        self.missing_tokens = 0
        self.sought = 0
        self.looked = (-1, -1)
        self.ready_s: float | None = None
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
        if self.state is not SequenceState.OPEN:
            return len(self.tokens)
        return max(self.cut(0, len(self.tokens) - self.samples), 0)

    @property
    def document_end(self) -> int:
        """Tokens that are known to stand before the task."""
        return self.prompt_tokens if self.task_start is None else self.task_start

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
        return (
            self.pending > 0
            and not self.is_blocked
            and not (self.parked and self.resume_pages > free_pages)
        )

    def note_ready(self, now: float) -> None:
        """Look whether it can be computed."""
        if self.pending <= 0 or self.is_blocked:
            self.ready_s = None
        elif self.ready_s is None:
            self.ready_s = now

    def taken(self, now: float) -> float:
        """A step takes it; seconds that it was ready before."""
        waited_s = 0.0 if self.ready_s is None else now - self.ready_s
        self.ready_s = None
        return waited_s

    @property
    def is_waiting(self) -> bool:
        """True while its client has to go on before it matters when it is computed."""
        return self.pending == 0 or self.parked

    @property
    def is_blocked(self) -> bool:
        """True where what it would compute next is on its way."""
        return self.barrier is not None and self.page >= self.barrier

    @property
    def free_end(self) -> int:
        """Positions that may be computed before something that is on its way is needed."""
        if self.barrier is None:
            return self.target
        return min(self.target, self.barrier * self.page_tokens)

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

    def seal(self, task_start: int | None = None) -> None:
        """Complete the prompt; delivered tokens follow it."""
        self.move(Move.SEAL)
        self.task_start = self.prompt_tokens if task_start is None else task_start
        self.parked = False
        self.tokens.extend(self.spec.delivered)
        self.output_tokens = len(self.spec.delivered)

    def push(self, token: int) -> None:
        """Append a sampled token."""
        self.move(Move.SAMPLE)
        self.tokens.append(token)
        self.output_tokens += 1

    @property
    def view(self) -> View:
        """What its queries see now."""
        answer = None if self.task_start is None else self.prompt_tokens
        return View(self.spec.policy, Zones(self.task_start, answer))

    def cut(self, start: int, end: int) -> int:
        """The last place in (start, end] where a chunk may end; ``start`` if there is none.

        Queries of a document that select pages together must be computed together.
        """
        policy = self.spec.policy
        task = end if self.task_start is None else self.task_start
        free = not policy.selects or end <= policy.dense_pages * self.page_tokens
        if free or (self.task_start is not None and end >= task):
            return end
        return max(start, end - end % self.page_tokens)

    def next_cut(self, start: int) -> int:
        """The first place behind ``start`` where a chunk may end."""
        page_end = (start // self.page_tokens + 1) * self.page_tokens
        task = page_end if self.task_start is None else self.task_start
        if self.cut(start, start + 1) > start:
            return start + 1
        return min(page_end, task) if task > start else page_end

    def droppable(self, group: int) -> range:
        """Places in the block table that no query at or behind ``computed`` sees in a group."""
        return self.spec.retentions[group].droppable(self.page)

    @property
    def prefix_pages(self) -> int:
        """Pages at the beginning that some group keeps though it gives up those behind them."""
        return max(retention.prefix_pages for retention in self.spec.retentions)

    @property
    def drops(self) -> bool:
        """True where some group gives up pages before the sequence ends."""
        return any(retention.drops for retention in self.spec.retentions)

    def pages(self, group: int = 0) -> npt.NDArray[np.int32]:
        """The pages whose part of a group it holds."""
        dropped, known = self.dropped[group], len(self.block_table)
        if not dropped:
            return self.block_table.view(0, known)
        first = self.block_table.view(0, min(dropped.start, known))
        rest = self.block_table.view(min(dropped.stop, known), known)
        return np.concatenate((first, rest))

    def drop(self, group: int, droppable: range) -> None:
        """Hold a group's part of the pages at these places no more."""
        self.dropped[group] = droppable
        start = max(dropped.start for dropped in self.dropped)
        stop = min(dropped.stop for dropped in self.dropped)
        if start < stop:
            self.block_table.fill(start, stop, HOLE)

    def skip(self, page: int) -> None:
        """Stand before a page, with what its cache has for the places up to it; see ``Memory``."""
        self._count_cached(self.computed, page * self.page_tokens)
        self.borrowed = max(self.borrowed, page * self.page_tokens)
        self.computed = page * self.page_tokens

    def forget_pages(self) -> None:
        """Hold nothing."""
        self.block_table.clear()
        self.dropped = [range(0)] * len(self.dropped)

    def depth(self, position: int) -> int:
        """Keys that the query at a position sees, as far as its cost goes."""
        return self.spec.policy.depth(position, self.page_tokens)

    def seen_share(self) -> float:
        """Keys that its queries saw so far, as a share of full attention's."""
        return seen_share(self.spec.policy, self.view.zones, self.computed, self.page_tokens)

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
            tokens = self.tokens.view(start, start + self.page_tokens).astype("<u4", copy=False)
            self._keys.append(child(parent, tokens.tobytes() + self._zone(start)))
        return self._keys[page]

    def label(self, page: int) -> Label:
        """Whose page it is."""
        parent = self.key(page - 1) if page else None
        return Label(self.spec.keys.tenant, self.subject, page, parent)

    def _zone(self, start: int) -> bytes:
        """What a page holds besides its tokens and those before: who of them sees everything."""
        if self.task_start is None or not self.spec.policy.selects:
            return b""
        if start + self.page_tokens <= self.task_start:
            return b""
        return b"task" + b"".join(
            place.to_bytes(8, "little") for place in (self.task_start, self.prompt_tokens)
        )

    def borrow(self, page: int) -> None:
        """Take a cached page for the one that would be computed next, and stand behind it."""
        self.computed -= self.computed % self.page_tokens
        self.block_table.append(page)
        start, end = self.computed, self.computed + self.page_tokens
        self._count_cached(start, end)
        self.borrowed += self.page_tokens
        self.computed = end

    def _count_cached(self, start: int, end: int) -> None:
        """Positions of the prompt that were never computed for this sequence."""
        prompt = range(start, min(end, self.prompt_tokens))
        twice = range(max(start, self.own.start), min(prompt.stop, self.own.stop))
        self.cached_tokens += len(prompt) - len(twice)

    def advance(self, end: int) -> None:
        """Have computed the positions up to ``end``."""
        start = min(self.computed, self.own.start) if self.own else self.computed
        self.own = range(start, max(end, self.own.stop))
        self.computed = end

    def evict(self) -> None:
        """Have lost all pages; what is known is computed again."""
        self.move(Move.PREEMPT)
        self.computed = self.borrowed = self.cached_tokens = 0
