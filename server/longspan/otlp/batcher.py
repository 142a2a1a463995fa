"""Sends ended spans in batches from a thread of its own: bounded in memory, in time, at the end."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)

QUEUE_SPANS = 4096
BATCH_SPANS = 256
INTERVAL_S = 1.0
LAST_WORDS_S = 0.2
"""For the exporter to return once its channel is closed."""


class Batcher(SpanProcessor):
    """Never waits and never raises where spans end: what finds no room is dropped and counted.

    The SDK's own ``BatchSpanProcessor`` starts a thread in every forked child, which under uvloop
    is each worker between its fork and its exec; it does not count what it drops either, and its
    shutdown waits for 30 s.

    Args:
        exporter: called from the thread alone; shut down by ``close``.
        queue_spans: most that wait; one batch more may be under way.
        interval_s: how long a span waits for others.
        unwanted: spans that are forgotten when they have ended, and not counted.

    Attributes:
        exported: spans that the collector took.
        dropped: spans that it did not.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        queue_spans: int = QUEUE_SPANS,
        batch_spans: int = BATCH_SPANS,
        interval_s: float = INTERVAL_S,
        unwanted: Callable[[ReadableSpan], bool] = lambda _: False,
    ) -> None:
        self._exporter = exporter
        self._queue_spans = queue_spans
        self._batch_spans = batch_spans
        self._interval_s = interval_s
        self._unwanted = unwanted
        self._waiting: deque[ReadableSpan] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._given_up = False
        self.exported = 0
        self.dropped = 0
        self._thread = threading.Thread(target=self._live, name="spans", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Spans that have not been tried."""
        return len(self._waiting)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: spans are sent when they have ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take one span, if it is sampled and wanted, and there is room."""
        if not span.context.trace_flags.sampled or self._unwanted(span):
            return
        with self._changed:
            if self._closing or len(self._waiting) >= self._queue_spans:
                self.dropped += 1
                return
            self._waiting.append(span)
            if len(self._waiting) in (1, self._batch_spans):
                self._changed.notify()

    def close(self, timeout_s: float) -> None:
        """Send what waits, for at most so long; what is left then is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            self._given_up = True
            self.dropped += len(self._waiting)
            self._waiting.clear()
        # Closes the channel, which ends a call under way.
        self._exporter.shutdown()
        self._thread.join(LAST_WORDS_S)

    def shutdown(self) -> None:
        """Whoever owns this calls ``close``."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nobody waits for spans."""
        return True

    def _live(self) -> None:
        while batch := self._next():
            taken = self._export(batch)
            with self._changed:
                if taken:
                    self.exported += len(batch)
                else:
                    self.dropped += len(batch)

    def _next(self) -> list[ReadableSpan]:
        """The next batch, as soon as it is full or old enough; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._changed.wait_for(self._is_due, self._interval_s)
            count = 0 if self._given_up else min(len(self._waiting), self._batch_spans)
            return [self._waiting.popleft() for _ in range(count)]

    def _is_due(self) -> bool:
        return self._closing or len(self._waiting) >= self._batch_spans

    def _export(self, batch: list[ReadableSpan]) -> bool:
        try:
            return self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:
            # The edge of an RPC: the thread must live on whatever the exporter meets.
            _log.exception("%d spans not exported", len(batch))
            return False
