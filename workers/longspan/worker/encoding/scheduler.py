"""Which texts the next engine step takes: token-budget dynamic batching, as pure policy.

A step starts when the engine is free and it is full, or some text has waited as long as it
may. Interactive jobs (``max_wait_s`` of 0) go first, then first come, first served; a job's
texts may be spread over several steps. Texts are packed without padding, so the order is
never changed to match lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from longspan.worker.encoding.job import Job, JobId, JobState, Move, text_tokens
from longspan.worker.limits import StepLimits
from longspan.worker.tally import Tally


@dataclass(frozen=True, slots=True)
class PlannedText:
    """One text of a step; ``tokens`` are its ids without special tokens."""

    job_id: JobId
    tokens: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """One engine step: its texts in packing order."""

    texts: tuple[PlannedText, ...]

    @property
    def job_ids(self) -> tuple[JobId, ...]:
        """Jobs with a text in the step, each once, in order."""
        return tuple(dict.fromkeys(text.job_id for text in self.texts))

    @property
    def tokens(self) -> int:
        """Tokens of the step, special tokens included."""
        return sum(text_tokens(text.tokens) for text in self.texts)


@dataclass(frozen=True, slots=True)
class JobEncoded:
    """Terminal: all vectors of the job, little-endian float32, in the order of its texts."""

    job_id: JobId
    vectors: bytes


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Terminal: nothing of the job is left."""

    job_id: JobId


Outcome = JobEncoded | JobCancelled


class Scheduler:
    """The jobs of one stream.

    The caller loops ``plan`` → run → ``commit``; at most one plan is open. Times are seconds
    of any monotonic clock.

    Attributes:
        tally: counts the steps.
    """

    def __init__(self, limits: StepLimits) -> None:
        self._limits = limits
        self.tally = Tally()
        self._interactive: dict[JobId, Job] = {}
        self._patient: dict[JobId, Job] = {}
        self._open: Plan | None = None

    def __contains__(self, job_id: JobId) -> bool:
        return job_id in self._interactive or job_id in self._patient

    @property
    def jobs(self) -> int:
        """Jobs that wait or run."""
        return len(self._interactive) + len(self._patient)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that no step has taken yet, special tokens included."""
        return sum(job.waiting_tokens for job in self._in_order())

    @property
    def running(self) -> tuple[JobId, ...]:
        """Jobs with a text in the open step."""
        return self._open.job_ids if self._open else ()

    def submit(
        self, job_id: JobId, texts: Sequence[bytes], *, max_wait_s: float, now: float
    ) -> None:
        """Queue a job that admission has accepted; its id is new and its texts fit a step."""
        assert job_id not in self
        queue = self._patient if max_wait_s > 0 else self._interactive
        queue[job_id] = Job(job_id, texts, now + max(max_wait_s, 0.0))

    def cancel(self, job_id: JobId) -> JobCancelled | None:
        """Forget a job: at once when it waits, else its ``commit`` reports it.

        An unknown id is ignored: the job may be done already.
        """
        job = self._find(job_id)
        if job is None:
            return None
        job.move(Move.CANCEL)
        return self._end(job) if job.state is JobState.CANCELLED else None

    def plan(self, now: float) -> Plan | None:
        """Open the next step, or None while one is open or nothing needs to start."""
        if self._open is not None:
            return None
        count, full = self._pack()
        if count == 0 or not (full or self._due(now)):
            return None
        waiting = self._waiting()
        chosen = [next(waiting) for _ in range(count)]
        # A job that may wait for others is ready once it has, and never waits in a full step.
        self.tally.waits_s += [max(now - job.deadline_s, 0.0) for job in chosen]
        self._open = Plan(tuple(PlannedText(job.job_id, job.take()) for job in chosen))
        return self._open

    def commit(self, plan: Plan, vectors: Sequence[bytes]) -> list[Outcome]:
        """Close the open step with one row per text; return the jobs that it ended."""
        assert plan is self._open
        for text, vector in zip(plan.texts, vectors, strict=True):
            self._require(text.job_id).vectors.append(vector)
        self.tally.step_tokens.append(plan.tokens)
        self._open = None
        settled = [self._settle(self._require(job_id)) for job_id in plan.job_ids]
        return [outcome for outcome in settled if outcome is not None]

    def next_wakeup(self, now: float) -> float | None:
        """When ``plan`` should be asked again if nothing else happens; None: no such time."""
        if self._open is not None:
            return None
        deadlines = [job.deadline_s for job in self._in_order()]
        return max(now, min(deadlines)) if deadlines else None

    def _in_order(self) -> Iterator[Job]:
        return chain(self._interactive.values(), self._patient.values())

    def _waiting(self) -> Iterator[Job]:
        """The job of every untaken text, in service order."""
        return (job for job in self._in_order() for _ in job.remaining)

    def _pack(self) -> tuple[int, bool]:
        """How many texts, in order, fit one step; and whether the step is full."""
        count = tokens = 0
        for job in self._in_order():
            for text in job.remaining:
                tokens += text_tokens(text)
                if count == self._limits.texts or tokens > self._limits.budget_tokens:
                    return count, True
                count += 1
        return count, count == self._limits.texts or tokens == self._limits.budget_tokens

    def _due(self, now: float) -> bool:
        return any(job.deadline_s <= now for job in self._in_order())

    def _settle(self, job: Job) -> Outcome | None:
        job.settle()
        if job.state is JobState.ENCODED:
            self._forget(job.job_id)
            return JobEncoded(job.job_id, b"".join(job.vectors))
        return self._end(job) if job.state is JobState.CANCELLED else None

    def _end(self, job: Job) -> JobCancelled:
        self._forget(job.job_id)
        return JobCancelled(job.job_id)

    def _forget(self, job_id: JobId) -> None:
        if self._interactive.pop(job_id, None) is None:
            del self._patient[job_id]

    def _find(self, job_id: JobId) -> Job | None:
        return self._interactive.get(job_id) or self._patient.get(job_id)

    def _require(self, job_id: JobId) -> Job:
        job = self._find(job_id)
        assert job is not None
        return job
