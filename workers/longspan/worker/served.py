"""What a worker serves: its model's description, and a workload for each stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.resources import Look, process_resources
from longspan.worker.workload import Workload

Wake = Callable[[], None]


def nobody() -> None:
    """A ``Wake`` where nobody waits."""


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded, warmed up and self-checked model.

    Attributes:
        ready: the first event of every stream.
        open: makes the workload of a new stream, which calls what it is given when something has
            happened outside of the engine's thread.
        close: puts everything away; called when no step runs any more.
        look: what the process takes and keeps; called from a thread of its own.
    """

    ready: pb.Event
    open: Callable[[Wake], Workload[Any, Any]]
    close: Callable[[], None] = lambda: None
    look: Look = process_resources
