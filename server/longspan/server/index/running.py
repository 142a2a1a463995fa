"""A build that somebody is waiting for; it stops when nobody is."""

from __future__ import annotations

import asyncio

from longspan.server.aio import cancel_and_wait
from longspan.server.index.build import Build, BuildProgress
from longspan.server.index.growth import Growth
from longspan.server.index.passage_index import PassageIndex


class RunningBuild:
    """One build shared by all who want its result.

    Attributes:
        growth: the document's bytes; closed with the build.
        progress: the build's counters.
        holders: how many wait for it; it is cancelled when the last one leaves.
    """

    def __init__(self, growth: Growth, build: Build) -> None:
        self.growth = growth
        self.progress: BuildProgress = build.progress
        self.holders = 1
        self._task = asyncio.create_task(build.run())

    def hold(self) -> None:
        """One more waits."""
        self.holders += 1

    async def release(self) -> None:
        """One fewer waits; the last one out stops the work and waits until it has stopped."""
        self.holders -= 1
        if self.holders == 0:
            await cancel_and_wait(self._task)
            self.growth.close()

    async def result(self) -> PassageIndex:
        """The finished index; raises what the build raised."""
        return await asyncio.shield(self._task)

    def check(self) -> None:
        """Raise what the build raised, if it has failed already."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    @property
    def failed(self) -> bool:
        """True when joining it is of no use."""
        return self._task.done() and (self._task.cancelled() or self._task.exception() is not None)
