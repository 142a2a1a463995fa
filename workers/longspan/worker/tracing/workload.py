"""A decoder's workload, with spans of what it does for each request."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.trace import Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.generation.plan import SequenceId, StepPlan
from longspan.worker.generation.workload import Generation
from longspan.worker.tally import Tally
from longspan.worker.tracing.sequence_spans import JOB, POLICY, REPLAYED, SequenceSpans
from longspan.worker.workload import PageCounts

TOKEN_BYTES = 4


class TracedGeneration:
    """A ``Workload`` that hands everything on, and learns from what goes through it.

    The scheduler below knows nothing of spans. Requests that nobody traces cost a look-up.
    """

    def __init__(self, inner: Generation, tracer: Tracer) -> None:
        self._inner = inner
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[int, SequenceSpans] = {}

    @property
    def jobs(self) -> int:
        """See ``Workload``."""
        return self._inner.jobs

    @property
    def running(self) -> Sequence[int]:
        """See ``Workload``."""
        return self._inner.running

    @property
    def pages(self) -> PageCounts:
        """See ``Workload``."""
        return self._inner.pages

    @property
    def tally(self) -> Tally:
        """See ``Workload``."""
        return self._inner.tally

    def handle(self, request: pb.ExecuteRequest, now: float) -> list[pb.Event]:
        """Take a command; an Open that belongs to a trace begins its spans."""
        if request.HasField("open") and request.open.trace:
            self._open(request.open)
        return self._told(self._inner.handle(request, now))

    def plan(self, now: float) -> StepPlan | None:
        """The next step."""
        plan = self._inner.plan(now)
        if self._spans:
            now_ns, restoring = time.time_ns(), self._inner.restoring
            for job_id, spans in self._spans.items():
                spans.restoring(restoring.get(SequenceId(job_id), 0), now_ns)
        return plan

    def run(self, plan: StepPlan) -> list[int]:
        """Compute one step."""
        now_ns = time.time_ns()
        for chunk in plan.chunks:
            if (spans := self._spans.get(chunk.sequence_id)) is not None:
                spans.computing(now_ns)
        return self._inner.run(plan)

    def commit(self, plan: StepPlan, result: Sequence[int]) -> list[pb.Event]:
        """Close the step."""
        now_ns = time.time_ns()
        for chunk in plan.chunks:
            if (spans := self._spans.get(chunk.sequence_id)) is not None:
                spans.computed(chunk.end, now_ns)
        return self._told(self._inner.commit(plan, result))

    def events(self) -> list[pb.Event]:
        """What happened outside of steps."""
        return self._told(self._inner.events())

    def next_wakeup(self, now: float) -> float | None:
        """See ``Workload``."""
        return self._inner.next_wakeup(now)

    def close(self) -> None:
        """The stream is over: nobody waits for the sequences any more."""
        now_ns = time.time_ns()
        for spans in self._spans.values():
            spans.end(now_ns, error="CANCELLED")
        self._spans.clear()
        self._inner.close()

    def _open(self, message: pb.Open) -> None:
        parent = self._propagator.extract(dict(message.trace))
        attributes: dict[str, str | int] = {JOB: message.job_id, POLICY: message.attention}
        if message.delivered:
            attributes[REPLAYED] = len(message.delivered) // TOKEN_BYTES
        self._spans.setdefault(message.job_id, SequenceSpans(self._tracer, parent, attributes))

    def _told(self, events: list[pb.Event]) -> list[pb.Event]:
        if self._spans and events:
            now_ns = time.time_ns()
            for event in events:
                self._hear(event, now_ns)
        return events

    def _hear(self, event: pb.Event, now_ns: int) -> None:
        kind = event.WhichOneof("kind")
        message = getattr(event, kind) if kind else None
        job_id = getattr(message, "job_id", 0)
        spans = self._spans.get(job_id)
        if spans is None:
            return
        match kind:
            case "prefilled":
                told = event.prefilled
                spans.prefilled(told.tokens, told.cached, told.missing)
            case "generated":
                spans.generated(len(event.generated.tokens) // TOKEN_BYTES, now_ns)
            case "finished" | "failed" | "cancelled":
                error = {"failed": event.failed.reason, "cancelled": "CANCELLED"}.get(kind, "")
                spans.end(now_ns, error=error)
                del self._spans[job_id]
