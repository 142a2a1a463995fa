"""Servers with certificates, and clients that check them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from longspan.client import AsyncClient, RetryPolicy, Timeout, Tls
from longspan.server.app import Server, running_server
from longspan.server.config import Config
from tests.support.certificates import Authority, Pair
from tests.support.serving import BASE_SETTINGS

IMPATIENT = Timeout(connect=2.0)
ONCE = RetryPolicy(attempts=1)


@dataclass
class Encrypted:
    """A server with TLS whose files can be changed.

    Attributes:
        authority: who signed the server's certificate.
    """

    server: Server
    folder: Path
    authority: Authority

    @property
    def target(self) -> str:
        """By name: the certificate is for it."""
        return f"localhost:{self.server.port}"

    def rotate(self, authority: Authority) -> None:
        """Give the server a certificate of another authority, one file after the other."""
        put(self.folder, "server", authority.server())
        self.authority = authority

    def client(self, caller: Pair | None = None, **options: Any) -> AsyncClient:
        """A client that trusts the authority of now."""
        ca = self.folder / "ca.pem"
        ca.write_bytes(self.authority.pem)
        tls = Tls(ca=ca)
        if caller is not None:
            certificate, key = caller.write(self.folder, "caller")
            tls = Tls(ca=ca, cert=certificate, key=key)
        return AsyncClient(self.target, tls=tls, timeout=IMPATIENT, retry=ONCE, **options)

    def credentials(self, caller: Pair | None = None) -> grpc.ChannelCredentials:
        """For raw channels."""
        if caller is None:
            return grpc.ssl_channel_credentials(self.authority.pem)
        return grpc.ssl_channel_credentials(self.authority.pem, caller.key, caller.certificate)


def put(folder: Path, name: str, pair: Pair) -> None:
    """Write both files aside and rename them, as a rotation does."""
    aside = folder / "aside"
    aside.mkdir(exist_ok=True)
    for path in pair.write(aside, name):
        path.replace(folder / path.name)


@asynccontextmanager
async def encrypted(
    folder: Path, client_ca: Authority | None = None, **settings: Any
) -> AsyncIterator[Encrypted]:
    """A server that only stores, with a certificate for localhost."""
    authority = Authority.new()
    put(folder, "server", authority.server())
    tls = {"cert": folder / "server.pem", "key": folder / "server.key"}
    if client_ca is not None:
        tls["client_ca"] = folder / "client-ca.pem"
        tls["client_ca"].write_bytes(client_ca.pem)
    settings = {**BASE_SETTINGS, "encoder": "none", "tls": tls, **settings}
    config = Config(data_dir=folder / "data", **settings, _cli_parse_args=False)  # type: ignore[call-arg]
    async with running_server(config) as server:
        yield Encrypted(server, folder, authority)
