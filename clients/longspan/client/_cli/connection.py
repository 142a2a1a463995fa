"""Which server a command talks to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from longspan.client._cli.local_server import local_server
from longspan.client._config import Timeout
from longspan.client._sync_client import Client

CONNECT_S = 3.0


@dataclass(frozen=True, slots=True)
class Connection:
    """The options that say where the server is."""

    server: str
    local: bool
    data_dir: Path | None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the server, which is started first when it is to be local.

        Raises:
            LongspanError: the local server did not start.
        """
        if self.data_dir is not None and not self.local:
            raise typer.BadParameter("--data-dir goes with --local")
        if not self.local:
            with Client(self.server, timeout=Timeout(connect=CONNECT_S)) as client:
                yield client
            return
        with local_server(self.data_dir) as target, Client(target) as client:
            yield client
