"""The engine's thread: plan, run, commit, one step after the other."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.admission import check_room
from longspan.worker.events import ended, heartbeat
from longspan.worker.job import JobId
from longspan.worker.scheduler import JobCancelled, Outcome, Plan, Scheduler
from longspan.worker.wire import Wire, WireClosed


@dataclass(frozen=True, slots=True)
class Session:
    """One stream: its jobs and its way back. Both die with it."""

    scheduler: Scheduler
    wire: Wire


class Engine:
    """Runs the steps of the attached session; every method is safe from any thread.

    ``run`` computes one step. If it raises, the process ends with status 1: the jobs of the
    step are the suspects, and the last heartbeat has named them.
    """

    def __init__(self, run: Callable[[Plan], Sequence[bytes]]) -> None:
        self._run = run
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._running: tuple[Session, Plan] | None = None
        self._steps = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._live_or_die, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the running step, deliver its results, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def attach(self, session: Session) -> None:
        """Serve this session from the next step on."""
        with self._changed:
            assert self._session is None
            self._session = session

    def detach(self, session: Session) -> None:
        """Drop the session and its jobs; a running step ends into nothing."""
        with self._changed:
            assert self._session is session
            self._session = None

    def submit(
        self, session: Session, job_id: JobId, texts: Sequence[bytes], *, max_wait_s: float
    ) -> None:
        """Queue a checked job.

        Raises:
            JobRefused: the id is in use or there is no room.
        """
        with self._changed:
            check_room(session.scheduler, job_id)
            now = time.monotonic()
            session.scheduler.submit(job_id, texts, max_wait_s=max_wait_s, now=now)
            self._changed.notify_all()

    def cancel(self, session: Session, job_id: JobId) -> JobCancelled | None:
        """Forget a job; None where the step's end will tell, or the id is unknown."""
        with self._changed:
            return session.scheduler.cancel(job_id)

    def heartbeat(self, session: Session) -> pb.Event:
        """The engine's state as this session may see it."""
        with self._changed:
            return heartbeat(
                self._steps,
                busy=self._running is not None,
                jobs=session.scheduler.jobs,
                running=session.scheduler.running,
            )

    def _live_or_die(self) -> None:
        try:
            while (work := self._next_plan()) is not None:
                self._step(*work)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def _next_plan(self) -> tuple[Session, Plan] | None:
        """Wait for the next step; None when the engine stops."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                session = self._session
                plan = session.scheduler.plan(now) if session else None
                if session and plan:
                    self._running = session, plan
                    return self._running
                wakeup = session.scheduler.next_wakeup(now) if session else None
                self._changed.wait(None if wakeup is None else wakeup - now)
            return None

    def _step(self, session: Session, plan: Plan) -> None:
        with suppress(WireClosed):  # the parent must know the suspects before the step can kill
            session.wire.send_from_engine([self.heartbeat(session)])
        vectors = self._run(plan)
        outcomes = self._commit(session, plan, vectors)
        with suppress(WireClosed):
            events = [ended(outcome) for outcome in outcomes]
            session.wire.send_from_engine([*events, self.heartbeat(session)])

    def _commit(self, session: Session, plan: Plan, vectors: Sequence[bytes]) -> list[Outcome]:
        with self._changed:
            self._running = None
            self._steps += 1
            return session.scheduler.commit(plan, vectors)
