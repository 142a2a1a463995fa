"""The result cache: answers found, shared while they are made, and kept."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass

from longspan.blobstore.verify import Report
from longspan.server.aio import cancel_and_wait
from longspan.server.errors import LongspanError
from longspan.server.identity import DocumentId, Tenant
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.results import ResultMetrics
from longspan.server.results.delivery import Delivery
from longspan.server.results.eligibility import was_cut_short
from longspan.server.results.first_level import Owner
from longspan.server.results.flight import AnswerTooLarge, Flight, State
from longspan.server.results.flights import Flights
from longspan.server.results.levels import Level
from longspan.server.results.recorder import Recorder
from longspan.server.results.stats import Counts, ResultStats
from longspan.server.results.tiers import Tiers
from longspan.server.services.wire import Outgoing

# Answers that are being kept at once; one that comes on top is not kept.
KEEPING = 64
# Documents that are removed from Redis at once; answers about others go when their time is over.
REMOVING = 64

Run = Callable[[Outgoing], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the cache knows it.

    Attributes:
        key: the same for equal requests.
        lane: only requests of the same lane share an answer that is being made.
        owner: whose it is.
        max_tokens: that a generated answer may have.
        still_there: whether its documents are; asked after an answer was kept.
    """

    key: bytes
    owner: Owner
    lane: int
    still_there: Callable[[], Awaitable[bool]]
    max_tokens: int = 0


class Results:
    """Answers requests from the cache, or lets one of equal requests make the answer.

    Args:
        tiers: where answers are kept.
        record_bytes: longer answers are neither shared nor kept.
        metrics: None: nobody looks at them.
    """

    def __init__(
        self, tiers: Tiers, record_bytes: int, metrics: ResultMetrics | None = None
    ) -> None:
        self._tiers = tiers
        self._metrics = metrics or Metrics().results
        self._flights = Flights(record_bytes)
        self._counts = Counts()
        self._keeping: set[asyncio.Task[None]] = set()
        self._removing: set[asyncio.Task[int]] = set()

    @property
    def enabled(self) -> bool:
        """Whether answers are kept anywhere."""
        return self._tiers.first is not None or self._tiers.disk is not None

    async def answer(
        self, request: Request, delivery: Delivery, outbox: Outgoing, run: Run
    ) -> tuple[Flight, Level | None] | None:
        """Tell the caller everything but the end.

        Args:
            delivery: tells the caller.
            outbox: of the caller, for what is no part of the answer.
            run: makes the answer.

        Returns:
            The flight, which has the end, and where it came from (None: made for this request);
            None where the answer was too large to share, and its end was told as well.

        Raises:
            LongspanError: what ``run`` raised for this request; never what it raised for another.
        """
        followed = False
        while True:
            flight, leads = self._flights.join(request.key, request.lane)
            if leads:
                self._counts.takeovers += followed
                recorder = Recorder(flight, outbox)
                flight.begin(self._make(flight, request, run, recorder))
                # Others may be listening when this caller is gone.
                with closing(recorder):
                    done = await self._follow(flight, delivery)
            else:
                done = await self._follow(flight, delivery)
            if done:
                return flight, self._count(flight, leads)
            if flight.state is State.TOO_LARGE:
                delivery.restart()
                await run(delivery)
                return None
            if leads:
                await flight.work_done()
            delivery.restart()
            followed = True

    def flight(self, request: Request) -> Flight:
        """A flight for an answer that is made anyway; see ``keep``."""
        return self._flights.alone(request.key, request.lane)

    def keep(self, flight: Flight, request: Request) -> None:
        """Keep a complete answer; until it is kept, equal requests find the flight."""
        if not self._flights.show(flight):
            return
        if was_cut_short(flight.completed, request.max_tokens):
            self._flights.land(flight)
            return
        if len(self._keeping) >= KEEPING:
            self._counts.dropped += 1
            self._flights.land(flight)
            return
        task = asyncio.create_task(self._keep(flight, request))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)

    def stats(self) -> ResultStats:
        """The counters, and what the levels hold; without I/O."""
        first, disk, counts = self._tiers.first, self._tiers.disk, self._counts
        return ResultStats(
            hits=dict(counts.hits),
            misses=counts.misses,
            stored=counts.stored,
            dropped=counts.dropped,
            takeovers=counts.takeovers,
            too_large=counts.too_large,
            flights=len(self._flights),
            memory_bytes=0 if first is None else first.size_bytes,
            redis=None if first is None else first.breaker,
            disk=None if disk is None else disk.stats,
            disk_breaker=None if disk is None else disk.breaker,
        )

    async def forget(self, tenant: Tenant, document_id: DocumentId) -> int:
        """Drop the answers about a document; returns how many there were in this server.

        Redis is told behind that: it has to look through all that it holds.
        """
        remote = self._tiers.remote
        if remote is not None and len(self._removing) < REMOVING:
            task = asyncio.create_task(remote.remove(tenant, document_id))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)
        return await self._tiers.remove(tenant, document_id)

    async def clear(self, tenant: Tenant | None = None) -> int:
        """Drop a tenant's answers, or all; returns how many there were."""
        remote = self._tiers.remote
        elsewhere = 0 if remote is None else await remote.remove(tenant)
        return max(elsewhere, await self._tiers.remove(tenant))

    async def verify(self) -> Report:
        """Read all answers on disk; damaged ones are removed."""
        disk = self._tiers.disk
        return Report() if disk is None else await disk.verify()

    async def kept(self) -> None:
        """Wait until the answers made so far are kept."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def close(self) -> None:
        """Let go of the levels."""
        await self.kept()
        for task in list(self._removing):
            await cancel_and_wait(task)
        await self._tiers.close()

    async def _follow(self, flight: Flight, delivery: Delivery) -> bool:
        """Tell a flight to one caller; the last to leave ends it."""
        try:
            return await delivery.follow(flight)
        finally:
            if self._flights.leave(flight):
                await flight.stop()

    async def _make(self, flight: Flight, request: Request, run: Run, recorder: Recorder) -> None:
        try:
            found = await self._tiers.find(request.key, request.owner)
            self._metrics.looked_up(
                None if found is None else found.level,
                first=self._tiers.first is not None,
                disk=self._tiers.disk is not None,
            )
            if found is not None:
                flight.replay(found.record, found.level)
                self._flights.land(flight)
                return
            await run(recorder)
            self.keep(flight, request)
        except AnswerTooLarge:
            self._counts.too_large += 1
        finally:
            flight.abandon()
            if flight.state is not State.COMPLETED:
                self._flights.land(flight)

    async def _keep(self, flight: Flight, request: Request) -> None:
        try:
            await self._tiers.put(flight.record(), request.owner)
            self._counts.stored += 1
            if not await request.still_there():
                for document in request.owner.subject.split(","):
                    await self.forget(request.owner.tenant, DocumentId(document))
        except (LongspanError, OSError, sqlite3.Error):
            # The catalog cannot be asked: the next request that asks it decides.
            pass
        finally:
            self._flights.land(flight)

    def _count(self, flight: Flight, leads: bool) -> Level | None:
        self._metrics.joined(hit=not leads)
        level = flight.found if leads else Level.FLIGHT
        if level is None:
            self._counts.misses += 1
        else:
            self._counts.hits[level] += 1
        return level
