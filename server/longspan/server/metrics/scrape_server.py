"""An HTTP server for scrapers, of which a slow or silent one holds neither the others nor files."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

log = logging.getLogger(__name__)

SCRAPERS = 16
"""Connections at once; a further one is closed."""
SCRAPE_S = 10.0
"""A connection is cut after so long, however slowly it is read or written."""
RETRY_S = 0.5


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each scrape."""


class ScrapeServer(ThreadingMixIn, WSGIServer):
    """Bound when it is made.

    Args:
        address: host and port.
        registry: what is scraped.
        patience_s: how long a connection may take.

    Raises:
        OSError: it cannot be bound.
    """

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], registry: CollectorRegistry, patience_s: float = SCRAPE_S
    ) -> None:
        kind, passive = socket.SOCK_STREAM, socket.AI_PASSIVE
        self.address_family = socket.getaddrinfo(*address, type=kind, flags=passive)[0][0]
        self._patience_s = patience_s
        self._free = threading.BoundedSemaphore(SCRAPERS)
        super().__init__(address, _Handler)
        self.set_app(make_wsgi_app(registry))

    def get_request(self) -> tuple[Any, Any]:
        """Accept one connection."""
        try:
            return super().get_request()
        except OSError:
            # Without a file for it, it stays there, and would be tried again without a pause.
            time.sleep(RETRY_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is one for it."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work."""
        cut = threading.Timer(self._patience_s, _cut, [request])
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that goes away is no event."""
        log.debug("a scrape failed", exc_info=True)


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
