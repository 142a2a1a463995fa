"""Encode commands as an engine's workload."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker import events
from longspan.worker.encoding.admission import JobRefused, TextRules, check_room
from longspan.worker.encoding.job import JobId
from longspan.worker.encoding.scheduler import JobCancelled, JobEncoded, Outcome, Plan, Scheduler
from longspan.worker.limits import StepLimits
from longspan.worker.tally import Tally
from longspan.worker.workload import PageCounts


class Encoding:
    """The encode jobs of one stream; see ``Workload``.

    Args:
        run: computes a step: one little-endian float32 row a text.
        rules: which texts are taken.
    """

    def __init__(
        self, run: Callable[[Plan], Sequence[bytes]], *, rules: TextRules, limits: StepLimits
    ) -> None:
        self._scheduler = Scheduler(limits)
        self._rules = rules
        self.run = run

    @property
    def jobs(self) -> int:
        """Jobs that wait or run."""
        return self._scheduler.jobs

    @property
    def running(self) -> Sequence[int]:
        """Jobs with a text in the open step."""
        return self._scheduler.running

    @property
    def pages(self) -> PageCounts:
        """An encoder has none."""
        return PageCounts()

    @property
    def tally(self) -> Tally:
        """See ``Scheduler``."""
        return self._scheduler.tally

    def handle(self, request: pb.ExecuteRequest, now: float) -> list[pb.Event]:
        """Take an Encode or a Cancel."""
        match request.WhichOneof("command"):
            case "encode":
                return self._encode(request.encode, now)
            case "cancel":
                cancelled = self._scheduler.cancel(JobId(request.cancel.job_id))
                return [ended(cancelled)] if cancelled else []
            case "open":
                return [events.failed(request.open.job_id, "NO_DECODER", "this worker encodes")]
        return []

    def plan(self, now: float) -> Plan | None:
        """See ``Scheduler.plan``."""
        return self._scheduler.plan(now)

    def commit(self, plan: Plan, result: Sequence[bytes]) -> list[pb.Event]:
        """See ``Scheduler.commit``."""
        return [ended(outcome) for outcome in self._scheduler.commit(plan, result)]

    def events(self) -> list[pb.Event]:
        """Nothing happens to an encode job outside of steps."""
        return []

    def next_wakeup(self, now: float) -> float | None:
        """See ``Scheduler.next_wakeup``."""
        return self._scheduler.next_wakeup(now)

    def close(self) -> None:
        """The jobs hold nothing but memory of their own."""

    def _encode(self, encode: pb.Encode, now: float) -> list[pb.Event]:
        job_id = JobId(encode.job_id)
        texts = tuple(encode.texts)
        try:
            self._rules.check(texts)
            check_room(self._scheduler, job_id)
        except JobRefused as refusal:
            return [events.failed(job_id, refusal.reason.value, str(refusal))]
        self._scheduler.submit(job_id, texts, max_wait_s=encode.max_wait_ms / 1000, now=now)
        return []


def ended(outcome: Outcome) -> pb.Event:
    """The terminal event of a job."""
    match outcome:
        case JobEncoded(job_id, vectors):
            return pb.Event(encoded=pb.Encoded(job_id=job_id, vectors=vectors))
        case JobCancelled(job_id):
            return events.cancelled(job_id)
