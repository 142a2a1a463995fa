"""The engine's thread: plan, run, commit, one step after the other."""

from __future__ import annotations

import os
import threading
import time
import traceback
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.events import heartbeat
from longspan.worker.wire import Wire, WireClosed
from longspan.worker.workload import PlanT, ResultT, Workload


@dataclass(frozen=True, slots=True, eq=False)
class Session(Generic[PlanT, ResultT]):
    """One stream: its jobs and its way back. Both die with it."""

    workload: Workload[PlanT, ResultT]
    wire: Wire


class Engine(Generic[PlanT, ResultT]):
    """Runs the steps of the attached session; every method is safe from any thread.

    If a step raises, the process ends with status 1: the jobs of the step are the suspects,
    and the last heartbeat has named them.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._session: Session[PlanT, ResultT] | None = None
        self._running: Session[PlanT, ResultT] | None = None
        self._steps = 0
        self._stopping = False
        self._life: Future[None] | None = None

    def start(self, thread: Executor) -> None:
        """Live in ``thread`` from now on."""
        self._life = thread.submit(self._live_or_die)

    def stop(self) -> None:
        """Finish the running step, deliver its results, and leave the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._life is not None:
            self._life.result()

    def attach(self, session: Session[PlanT, ResultT]) -> None:
        """Serve this session from the next step on."""
        with self._changed:
            assert self._session is None
            self._session = session

    def detach(self, session: Session[PlanT, ResultT]) -> None:
        """Drop the session and its jobs; a running step ends into nothing."""
        with self._changed:
            assert self._session is session
            self._session = None
            if self._running is not session:
                session.workload.close()

    def handle(
        self, session: Session[PlanT, ResultT], request: pb.ExecuteRequest
    ) -> list[pb.Event]:
        """Give a command to the session's workload; return what it answers at once."""
        with self._changed:
            answers = session.workload.handle(request, time.monotonic())
            self._changed.notify_all()
            return answers

    def wake(self) -> None:
        """Something happened that the workload should look at."""
        with self._changed:
            self._changed.notify_all()

    def heartbeat(self, session: Session[PlanT, ResultT]) -> pb.Event:
        """The engine's state as this session may see it, and what nobody was told of yet."""
        with self._changed:
            return heartbeat(
                self._steps,
                busy=self._running is not None,
                jobs=session.workload.jobs,
                running=session.workload.running,
                pages=session.workload.pages,
                computed=session.workload.tally.drain(),
            )

    def _live_or_die(self) -> None:
        try:
            while (work := self._next()) is not None:
                session, plan, events = work
                if events:
                    with suppress(WireClosed):
                        session.wire.send_from_engine(events)
                if plan is not None:
                    self._step(session, plan)
        except Exception:
            traceback.print_exc()
            os._exit(1)

    def _next(self) -> tuple[Session[PlanT, ResultT], PlanT | None, list[pb.Event]] | None:
        """Wait for the next step or for events outside of steps; None when the engine stops."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                session = self._session
                if session is None:
                    self._changed.wait()
                    continue
                plan = session.workload.plan(now)
                events = session.workload.events()
                if plan is not None:
                    self._running = session
                if plan is not None or events:
                    return session, plan, events
                wakeup = session.workload.next_wakeup(now)
                self._changed.wait(None if wakeup is None else max(wakeup - now, 0.0))
            return None

    def _step(self, session: Session[PlanT, ResultT], plan: PlanT) -> None:
        with suppress(WireClosed):  # the parent must know the suspects before the step can kill
            session.wire.send_from_engine([self.heartbeat(session)])
        result = session.workload.run(plan)
        events = self._commit(session, plan, result)
        with suppress(WireClosed):
            session.wire.send_from_engine([*events, self.heartbeat(session)])

    def _commit(
        self, session: Session[PlanT, ResultT], plan: PlanT, result: ResultT
    ) -> list[pb.Event]:
        with self._changed:
            self._running = None
            self._steps += 1
            events = session.workload.commit(plan, result)
            if self._session is not session:
                session.workload.close()
            return events
