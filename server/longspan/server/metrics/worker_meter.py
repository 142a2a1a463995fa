"""What one worker process tells of itself, from its first heartbeat to its last."""

from __future__ import annotations

from collections.abc import Callable

from longspan.internal.v1 import worker_service_pb2 as pb

Computed = Callable[[pb.Computed, pb.Resources], None]
Grew = Callable[[pb.Resources, pb.Resources], None]


class WorkerMeter:
    """Keeps what it told last. What a new process counts begins at nothing, as does its meter:
    so counts are added to those of the processes before it, and never go back.

    Args:
        computed: is told what was computed, and what the process keeps.
        grew: is told of each two looks one after the other.
    """

    def __init__(self, computed: Computed, grew: Grew) -> None:
        self._computed = computed
        self._grew = grew
        self.used_pages = self.cached_pages = self.total_pages = 0
        self.kept = pb.Resources()

    @property
    def memory_bytes(self) -> int:
        """Resident memory."""
        return self.kept.memory_bytes

    @property
    def pool_bytes(self) -> int:
        """Of pages that hold something."""
        return (self.used_pages + self.cached_pages) * self.kept.page_bytes

    @property
    def pool_capacity_bytes(self) -> int:
        """Of all pages."""
        return self.total_pages * self.kept.page_bytes

    def heard(self, heartbeat: pb.Heartbeat) -> None:
        """A heartbeat came."""
        self.used_pages = heartbeat.used_pages
        self.cached_pages = heartbeat.cached_pages
        self.total_pages = heartbeat.total_pages
        if heartbeat.HasField("resources"):
            self._grew(self.kept, heartbeat.resources)
            self.kept = heartbeat.resources
        if heartbeat.HasField("computed"):
            self._computed(heartbeat.computed, self.kept)
