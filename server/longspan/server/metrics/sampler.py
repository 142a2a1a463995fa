"""Looks once a second at what cannot be counted where it happens."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress

from longspan.host.memory import memory
from longspan.server.errors import LongspanError
from longspan.server.metrics.metrics import Metrics
from longspan.server.metrics.role import RoleMetrics
from longspan.server.queue.stats import DispatcherStats
from longspan.server.services.application import Application

log = logging.getLogger(__name__)

SAMPLE_S = 1.0
TICK_S = 0.1


async def watch_start(stats: Callable[[], DispatcherStats], metrics: RoleMetrics) -> None:
    """Look at one role until cancelled: before it is ready there is nothing else to sample."""
    while True:
        metrics.sample(stats())
        await asyncio.sleep(SAMPLE_S)


class Sampler:
    """Runs on the event loop, where all that it looks at lives."""

    def __init__(self, application: Application, metrics: Metrics) -> None:
        self._app = application
        self._metrics = metrics

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            try:
                await self.sample()
            except Exception:
                # The edge of a task: what is served goes on, and the next look may succeed.
                log.exception("nothing sampled for metrics")
            await asyncio.sleep(SAMPLE_S)

    async def watch_lag(self) -> None:
        """Measure until cancelled how late this loop is."""
        clock = asyncio.get_running_loop().time
        while True:
            due_s = clock() + TICK_S
            await asyncio.sleep(TICK_S)
            self._metrics.machine.late(clock() - due_s)

    async def sample(self) -> None:
        """Look once."""
        app, metrics = self._app, self._metrics
        if app.embedder is not None:
            metrics.encoder.sample(app.embedder.dispatcher.stats())
        if app.decoder is not None:
            metrics.decoder.sample(app.decoder.dispatcher.stats())
        metrics.results.sample(app.results.stats())
        metrics.machine.sample(memory())
        metrics.tracing.sample(
            enabled=app.tracing.enabled,
            exported=app.tracing.spans_exported,
            dropped=app.tracing.spans_dropped,
        )
        # A catalog that cannot be asked says so where it is needed.
        with suppress(LongspanError, OSError, sqlite3.Error):
            metrics.documents.sample(*await app.library.totals())
