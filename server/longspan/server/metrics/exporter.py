"""Serves metrics over HTTP, from threads of its own: also while the event loop is busy."""

from __future__ import annotations

import threading
from typing import Self

from prometheus_client import CollectorRegistry

from longspan.server.listener import host_and_port, not_free
from longspan.server.metrics.scrape_server import SCRAPE_S, ScrapeServer


class Exporter:
    """One bound port; text or OpenMetrics, as the scraper asks.

    Attributes:
        port: where it listens.
    """

    def __init__(self, server: ScrapeServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port = server.server_port

    @classmethod
    def start(cls, address: str, registry: CollectorRegistry, patience_s: float = SCRAPE_S) -> Self:
        """Bind and serve; blocking.

        Args:
            address: host:port.
            registry: what is scraped.
            patience_s: how long one scrape may take.

        Raises:
            ConfigError: the address is malformed or in use.
        """
        host, port = host_and_port(address)
        try:
            return cls(ScrapeServer((host, port), registry, patience_s))
        except OSError as error:
            raise not_free(address) from error

    def close(self) -> None:
        """Stop serving; blocking."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
