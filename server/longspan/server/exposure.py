"""Whether the API port may be reached from elsewhere as it is. Pure."""

from __future__ import annotations

import ipaddress

from longspan.server.auth.settings import AuthSettings
from longspan.server.errors import ConfigError
from longspan.server.tls.settings import TlsSettings


def check_exposure(listen: str, tls: TlsSettings, auth: AuthSettings, *, insecure: bool) -> None:
    """Beyond this machine, callers must be able to trust the port, and the port its callers.

    Raises:
        ConfigError: they are not; the message says what to do.
    """
    if insecure or is_loopback(listen):
        return
    missing = []
    if not tls.enabled:
        missing.append("TLS (--tls.cert and --tls.key)")
    if not auth.enabled and tls.client_ca is None:
        missing.append("authentication (--auth.keys-file, --auth.jwt-key or --tls.client-ca)")
    if missing:
        raise ConfigError(
            f"listening on {listen} without {' and '.join(missing)}: anybody on the network "
            "could read and send documents; add what is missing, listen on 127.0.0.1, or "
            "say --insecure where something else protects the port"
        )


def is_loopback(address: str) -> bool:
    """True where host:port is on this machine alone."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
