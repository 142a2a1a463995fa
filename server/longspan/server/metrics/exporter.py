"""Serves metrics over HTTP, from threads of its own: also while the event loop is busy."""

from __future__ import annotations

import threading
from typing import Self
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from longspan.server.listener import host_and_port, not_free


class Exporter:
    """One bound port; text or OpenMetrics, as the scraper asks.

    Attributes:
        port: where it listens.
    """

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    @classmethod
    def start(cls, address: str, registry: CollectorRegistry) -> Self:
        """Bind and serve; blocking.

        Raises:
            ConfigError: the address is malformed or in use.
        """
        host, port = host_and_port(address)
        try:
            return cls(*start_http_server(port, host, registry))
        except OSError as error:
            raise not_free(address) from error

    def close(self) -> None:
        """Stop serving; blocking."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
