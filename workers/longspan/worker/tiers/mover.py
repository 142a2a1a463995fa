"""Moves parts of pages between the pool, RAM and SSD, in threads of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from queue import Empty, SimpleQueue

from longspan.worker.kv.chain import PageKey
from longspan.worker.kv.label import Label
from longspan.worker.tiers.costs import Rate
from longspan.worker.tiers.lower import LowerTiers
from longspan.worker.tiers.moves import Moved, Ticket
from longspan.worker.tiers.page_tensors import Lying, PageTensors
from longspan.worker.tiers.part import Part

log = logging.getLogger(__name__)

PRIOR_BYTES_PER_S = 500e6
"""What loading is believed to do before the first page has been loaded."""


class Mover:
    """See ``Tiers``; one thread loads, so that what waits can be taken back, another stores.

    Args:
        tensors: of the pool.
        lower: what lies below it.
    """

    def __init__(self, tensors: PageTensors, lower: LowerTiers) -> None:
        self._tensors = tensors
        self._lower = lower
        self._loading = ThreadPoolExecutor(1, "kv-load")
        self._storing = ThreadPoolExecutor(1, "kv-store")
        self._tickets = count(1)
        self._running: dict[Ticket, Future[bool]] = {}
        self._finished: SimpleQueue[Moved] = SimpleQueue()
        self._load = Rate(sum(tensors.sizes) / PRIOR_BYTES_PER_S)
        self._load_began_s: float | None = None
        self.wake: Callable[[], None] = lambda: None
        self.loaded = 0
        self.stored = 0

    @property
    def load_s(self) -> float:
        """See ``Tiers``."""
        began_s = self._load_began_s
        running_s = 0.0 if began_s is None else time.monotonic() - began_s
        return max(self._load.seconds, running_s)

    @property
    def lower(self) -> LowerTiers:
        """What lies below the pool."""
        return self._lower

    def knows(self, key: PageKey, group: int) -> bool:
        """See ``Tiers``."""
        return self._lower.knows(Part(key, group))

    def touch(self, key: PageKey, group: int) -> None:
        """See ``Tiers``."""
        self._lower.touch(Part(key, group))

    def load(self, key: PageKey, groups: Sequence[int], lying: Lying) -> Ticket:
        """See ``Tiers``."""
        return self._start(self._loading, lambda: self._bring(key, groups, lying))

    def store(
        self, key: PageKey, groups: Sequence[int], lying: Lying, label: Label, cost_s: float
    ) -> Ticket:
        """See ``Tiers``."""
        return self._start(self._storing, lambda: self._keep(key, groups, lying, label, cost_s))

    def cancel(self, ticket: Ticket) -> bool:
        """See ``Tiers``."""
        if not self._running[ticket].cancel():
            return False
        del self._running[ticket]
        return True

    def finished(self) -> list[Moved]:
        """See ``Tiers``."""
        ended: list[Moved] = []
        while True:
            try:
                moved = self._finished.get_nowait()
            except Empty:
                return ended
            del self._running[moved.ticket]
            ended.append(moved)

    def later(self, work: Callable[[], None]) -> None:
        """Run something slow behind what is being stored; its failure is logged."""
        self._storing.submit(logged, work)

    def close(self) -> None:
        """Wait for what runs; nothing else begins."""
        self._loading.shutdown(cancel_futures=True)
        self._storing.shutdown()
        self._lower.close()

    def _start(self, threads: ThreadPoolExecutor, work: Callable[[], bool]) -> Ticket:
        ticket = Ticket(next(self._tickets))
        future = threads.submit(work)
        self._running[ticket] = future
        future.add_done_callback(lambda ended: self._ended(ticket, ended))
        return ticket

    def _ended(self, ticket: Ticket, future: Future[bool]) -> None:
        if not future.cancelled():
            whole = future.exception() is None and future.result()
            self._finished.put(Moved(ticket, whole))
            self.wake()

    def _bring(self, key: PageKey, groups: Sequence[int], lying: Lying) -> bool:
        self._load_began_s = started = time.monotonic()
        try:
            for group in groups:
                data = self._lower.load(Part(key, group), self._tensors.sizes[group])
                if data is None:
                    return False
                self._tensors.write(group, lying, data)
        finally:
            self._load_began_s = None
        self._load.observe(1, time.monotonic() - started)
        self.loaded += 1
        return True

    def _keep(
        self, key: PageKey, groups: Sequence[int], lying: Lying, label: Label, cost_s: float
    ) -> bool:
        for group in groups:
            data = self._tensors.read(group, lying)
            if not self._lower.store(Part(key, group), data, label, cost_s / len(groups)):
                return False
        self.stored += 1
        return True


def logged(work: Callable[[], None]) -> None:
    """Run something that nobody waits for: the edge of a thread."""
    try:
        work()
    except Exception:
        log.exception("work below the page pool failed")
