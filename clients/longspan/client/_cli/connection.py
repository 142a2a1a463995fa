"""Which server a command talks to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from longspan.client._cli.local_server import local_server
from longspan.client._cli.options import ServerOptions, TlsOptions
from longspan.client._config import Timeout
from longspan.client._credentials import Tls
from longspan.client._sync_client import Client

CONNECT_S = 3.0


@contextmanager
def connected(options: ServerOptions) -> Iterator[Client]:
    """A client of the server, which is started first when it is to be local.

    Raises:
        BadParameter: an option for a local server, and none is asked for.
        LongspanError: the local server did not start.
    """
    for name, value in (("--data-dir", options.data_dir), ("--model", options.model)):
        if value is not None and not options.local:
            raise typer.BadParameter(f"{name} goes with --local")
    if not options.local:
        with _remote(options) as client:
            yield client
        return
    with local_server(options.data_dir, options.model) as target, Client(target) as client:
        yield client


def tls_of(options: TlsOptions) -> Tls | bool:
    """What the options say about TLS.

    Raises:
        BadParameter: one of certificate and key is missing.
    """
    files = (options.tls_ca, options.tls_cert, options.tls_key)
    if files == (None, None, None):
        return options.tls
    try:
        return Tls(ca=options.tls_ca, cert=options.tls_cert, key=options.tls_key)
    except ValueError:
        raise typer.BadParameter("--tls-cert and --tls-key go together") from None


def _remote(options: ServerOptions) -> Client:
    try:
        return Client(
            options.server,
            timeout=Timeout(connect=CONNECT_S),
            tls=tls_of(options),
            api_key=options.api_key,
            plaintext_key=options.plaintext_key,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
