"""Which documents are never tried again: those whose job kills workers again and again.

A job strikes when a worker dies while the job is in the running step. The first strike
accuses everything that ran together; the struck jobs are then run alone, so a further
death names the guilty one. Strikes belong to jobs, not to documents: workers that are
killed from outside hit many jobs of a long document once, and few of them in a row.

Not every death is as telling. A crash or a hang is the job's; two of them condemn. A
SIGKILL may come from an operator, a container runtime or for lack of memory, and a process
that falls silent may stand on a machine that does; it takes four of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from longspan.server.errors import DocumentQuarantined
from longspan.server.queue.job import JobId, Subject

CRASH = 2
KILL = 1
"""What a death weighs: by the process's own doing, or by somebody's hand."""
GUILTY = 4


class Quarantine:
    """Strikes of live jobs, by weight, and a bounded, expiring set of subjects that struck out.

    Args:
        capacity: subjects kept; the one quarantined or asked for longest ago goes first.
        ttl_s: how long a subject stays.
    """

    def __init__(self, *, capacity: int = 1024, ttl_s: float = 3600.0) -> None:
        self._capacity = capacity
        self._ttl_s = ttl_s
        self._suspects: dict[JobId, int] = {}
        self._until_s: OrderedDict[Subject, float] = OrderedDict()

    @property
    def suspects(self) -> Collection[JobId]:
        """Jobs that must run alone, oldest first: a SIGKILL by itself accuses nobody."""
        return [job for job, strikes in self._suspects.items() if strikes >= CRASH]

    def struck(
        self,
        in_flight: Mapping[JobId, Subject],
        running: Collection[JobId],
        now: float,
        *,
        weight: int = CRASH,
    ) -> set[Subject]:
        """A worker died: strike what ran; return the subjects quarantined by that.

        Args:
            in_flight: jobs the worker had, and what each is about.
            running: jobs of its running step, as far as it told. When none of them is
                still in flight that is old news, and all that was in flight is accused.
            weight: of the death.
        """
        accused = [job for job in in_flight if job in running] or list(in_flight)
        for job in accused:
            self._suspects[job] = self._suspects.get(job, 0) + weight
        guilty = {in_flight[job] for job in accused if self._suspects[job] >= GUILTY}
        for subject in guilty:
            self.lock_up(subject, now)
        return guilty

    def cleared(self, job_id: JobId) -> None:
        """The job ended, well or not: its strike is forgotten."""
        self._suspects.pop(job_id, None)

    def error(self, subject: Subject, now: float) -> DocumentQuarantined | None:
        """Why a subject is not tried; None when it may be."""
        until_s = self._until_s.get(subject)
        if until_s is None:
            return None
        if until_s <= now:
            del self._until_s[subject]
            return None
        self._until_s.move_to_end(subject)
        return DocumentQuarantined(
            f"document {subject} killed workers; not tried again for {until_s - now:.0f} s"
        )

    def lock_up(self, subject: Subject, now: float) -> None:
        """Try a subject no more for as long as the quarantine lasts."""
        self._until_s[subject] = now + self._ttl_s
        self._until_s.move_to_end(subject)
        while len(self._until_s) > self._capacity:
            self._until_s.popitem(last=False)
