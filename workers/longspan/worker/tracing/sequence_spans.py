"""The spans of one sequence on this worker.

    WAITING ──CHUNK──▶ PREFILLING       its first chunk is about to be computed
    PREFILLING ──CHUNK──▶ PREFILLING
    PREFILLING ──READ──▶ DECODING       the prompt is read, its first token is there
    DECODING ──CHUNK, READ──▶ DECODING  a step each; a preempted sequence is read again
    all ──END──▶ ENDED

``MOVES`` is the whole truth; a move that is not in it raises ``KeyError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer

PREFILL = "prefill"
DECODE = "decode"
RESTORE = "restore KV pages"
STEP = "longspan.step"

JOB = "longspan.job"
STEPS = "longspan.steps"
TOKENS = "longspan.tokens"
CACHED = "longspan.kv.cached_tokens"
MISSING = "longspan.kv.missing_tokens"
PAGES = "longspan.kv.pages"
POLICY = "longspan.attention"
REPLAYED = "longspan.replayed_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ERROR_TYPE = "error.type"

CLIENTS_FAULTS = frozenset(
    {"PROMPT_TOO_LONG", "OUT_OF_PAGES", "BAD_GRAMMAR", "BAD_REQUEST", "QUEUE_FULL"}
)


class State(Enum):
    """Where a sequence stands."""

    WAITING = auto()
    PREFILLING = auto()
    DECODING = auto()
    ENDED = auto()


class Move(Enum):
    """What can happen to it."""

    CHUNK = auto()
    READ = auto()
    END = auto()


MOVES: Mapping[tuple[State, Move], State] = {
    (State.WAITING, Move.CHUNK): State.PREFILLING,
    (State.PREFILLING, Move.CHUNK): State.PREFILLING,
    (State.PREFILLING, Move.READ): State.DECODING,
    (State.DECODING, Move.CHUNK): State.DECODING,
    (State.DECODING, Move.READ): State.DECODING,
    (State.WAITING, Move.END): State.ENDED,
    (State.PREFILLING, Move.END): State.ENDED,
    (State.DECODING, Move.END): State.ENDED,
}


class SequenceSpans:
    """One sequence from its Open to its end; times are nanoseconds since the epoch.

    Args:
        tracer: makes the spans.
        parent: of the request.
        attributes: of both spans.
    """

    def __init__(
        self, tracer: Tracer, parent: Context, attributes: Mapping[str, str | int]
    ) -> None:
        self._tracer = tracer
        self._parent = parent
        self._attributes = attributes
        self._span: Span | None = None
        self._restoring: Span | None = None
        self._steps = 0
        self._output_tokens = 0
        self.state = State.WAITING

    def computing(self, now_ns: int) -> None:
        """A step with a chunk of it begins."""
        if self.state is State.WAITING:
            self._begin(PREFILL, now_ns)
        self._move(Move.CHUNK)

    def computed(self, end: int, now_ns: int) -> None:
        """That step is over, up to position ``end``.

        Of the steps the first is told, the second, the fourth and so on: few, however many.
        """
        self._steps += 1
        if self._span is not None and self._steps & (self._steps - 1) == 0:
            self._span.add_event(STEP, {STEPS: self._steps, TOKENS: end}, now_ns)

    def prefilled(self, tokens: int, cached: int, missing: int) -> None:
        """How far the prompt is read, and what of it was not computed."""
        if self.state is State.PREFILLING and self._span is not None:
            self._span.set_attributes({TOKENS: tokens, CACHED: cached, MISSING: missing})

    def generated(self, tokens: int, now_ns: int) -> None:
        """New tokens; the first of them end the prefill."""
        self._output_tokens += tokens
        if self.state is State.PREFILLING:
            self._end_span(now_ns)
            self._begin(DECODE, now_ns)
        self._move(Move.READ)

    def restoring(self, pages: int, now_ns: int) -> None:
        """How many of its pages are being brought back from RAM or disk."""
        if pages and self._restoring is None:
            self._restoring = self._start(RESTORE, now_ns)
            self._restoring.set_attribute(PAGES, pages)
        elif not pages and self._restoring is not None:
            self._restoring.end(now_ns)
            self._restoring = None

    def end(self, now_ns: int, *, error: str = "") -> None:
        """It has ended; ``error`` is why, by its name."""
        self.restoring(0, now_ns)
        if self.state is State.WAITING and error:
            # Refused before anything was computed: that is worth a span, of no length.
            self._begin(PREFILL, now_ns)
        if self._span is not None and error:
            self._span.set_attribute(ERROR_TYPE, error)
            if error not in CLIENTS_FAULTS and error != "CANCELLED":
                self._span.set_status(Status(StatusCode.ERROR))
        self._end_span(now_ns)
        self._move(Move.END)

    def _move(self, move: Move) -> None:
        self.state = MOVES[self.state, move]

    def _begin(self, name: str, now_ns: int) -> None:
        self._span = self._start(name, now_ns)
        self._steps = 0

    def _start(self, name: str, now_ns: int) -> Span:
        return self._tracer.start_span(
            name, context=self._parent, attributes=self._attributes, start_time=now_ns
        )

    def _end_span(self, now_ns: int) -> None:
        if self._span is None:
            return
        self._span.set_attribute(STEPS, self._steps)
        if self.state is State.DECODING:
            self._span.set_attribute(OUTPUT_TOKENS, self._output_tokens)
        self._span.end(now_ns)
        self._span = None
