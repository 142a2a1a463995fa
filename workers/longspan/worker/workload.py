"""What an engine works on: the jobs of one stream, whichever model serves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.tally import Tally


class PageCounts(NamedTuple):
    """KV pages that sequences hold, free ones that keep what they held, and all there are."""

    used: int = 0
    cached: int = 0
    total: int = 0


PlanT = TypeVar("PlanT")
ResultT = TypeVar("ResultT")


class Workload(Protocol[PlanT, ResultT]):
    """The jobs of one stream; plan → run → commit, at most one plan open at a time.

    All methods but ``run`` are called under the engine's lock and must be quick. Times are
    seconds of any monotonic clock.
    """

    @property
    def jobs(self) -> int:
        """Jobs that have not ended."""
        ...

    @property
    def running(self) -> Sequence[int]:
        """Jobs in the open plan."""
        ...

    @property
    def pages(self) -> PageCounts:
        """KV pages of the model; zeros where it has none."""
        ...

    @property
    def tally(self) -> Tally:
        """What its steps have computed and nobody was told yet."""
        ...

    def handle(self, request: pb.ExecuteRequest, now: float) -> list[pb.Event]:
        """Take a command; return what can be answered at once."""
        ...

    def plan(self, now: float) -> PlanT | None:
        """The next step; None while there is nothing to run."""
        ...

    def run(self, plan: PlanT) -> ResultT:
        """Compute one step, in the engine's thread and outside its lock."""
        ...

    def commit(self, plan: PlanT, result: ResultT) -> list[pb.Event]:
        """Close the step; return its events."""
        ...

    def events(self) -> list[pb.Event]:
        """What happened outside of steps since the last call, such as deadlines."""
        ...

    def next_wakeup(self, now: float) -> float | None:
        """When ``plan`` should be asked again if nothing else happens; None: no such time."""
        ...

    def close(self) -> None:
        """The stream is over: drop its jobs."""
        ...
