"""How a client shows who it is, and knows whom it talks to."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longspan.client._config import CHANNEL_OPTIONS, LOCAL_OPTIONS
from longspan.client._exceptions import PlaintextKey

if TYPE_CHECKING:
    import grpc

Metadata = tuple[tuple[str, str], ...]

AUTHORIZATION = "authorization"
_LOCAL_SCHEMES = ("unix:", "unix-abstract:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files in PEM for an encrypted connection.

    Attributes:
        ca: authorities that may have signed the server's certificate; None takes those
            that gRPC knows.
        cert, key: the client's own certificate and its key, for a server that asks for one.

    Raises:
        ValueError: one of cert and key is missing.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """What gRPC takes.

        Raises:
            OSError: a file cannot be read.
        """
        # Only who connects needs gRPC, and it takes long to load.
        import grpc

        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.cert),
        )


def channel_credentials(
    tls: Tls | bool, credentials: grpc.ChannelCredentials | None
) -> grpc.ChannelCredentials | None:
    """The channel's credentials; None is plain text.

    Raises:
        ValueError: both are given.
        OSError: a file cannot be read.
    """
    if tls is False:
        return credentials
    if credentials is not None:
        raise ValueError("give tls or credentials, not both")
    return (Tls() if tls is True else tls).credentials()


def call_metadata(
    target: str,
    metadata: Mapping[str, str] | None,
    api_key: str | None,
    *,
    may_show_key: bool,
) -> Metadata:
    """What is sent with every call, the key included.

    Args:
        may_show_key: the connection is encrypted, or the caller does not mind.

    Raises:
        PlaintextKey: the key would cross a network for everybody to read.
        ValueError: the key is malformed, or there are two.
    """
    sent = tuple((metadata or {}).items())
    names = {name.lower() for name, _ in sent}
    if api_key is not None:
        if AUTHORIZATION in names:
            raise ValueError(f"give api_key or the metadata {AUTHORIZATION!r}, not both")
        if not (api_key.isascii() and api_key.isprintable() and api_key and " " not in api_key):
            # What was given instead may be a secret too: it is not quoted.
            raise ValueError("an api_key is printable ASCII without spaces")
        sent += ((AUTHORIZATION, f"Bearer {api_key}"),)
        names.add(AUTHORIZATION)
    if AUTHORIZATION in names and not may_show_key and not is_local(target):
        raise PlaintextKey(
            f"the key would go to {target} unencrypted: use TLS, or allow it (plaintext_key) "
            "where something else encrypts the connection"
        )
    return sent


def channel_options(target: str) -> tuple[tuple[str, int], ...]:
    """The channel's options: what is for this machine passes no proxy, whatever is set."""
    return LOCAL_OPTIONS if is_local(target) else CHANNEL_OPTIONS


def is_local(target: str) -> bool:
    """True for a target that surely is on this machine."""
    if target.startswith(_LOCAL_SCHEMES):
        return True
    address = target.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/")
    if "/" in address:
        # What stands before it is where the name is looked up, not where the key goes.
        return False
    host = address.rpartition(":")[0] if ":" in address else address
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
