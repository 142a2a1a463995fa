"""What may listen where."""

from __future__ import annotations

from pathlib import Path

import pytest

from longspan.server.auth.settings import AuthSettings
from longspan.server.errors import ConfigError
from longspan.server.exposure import check_exposure, is_loopback
from longspan.server.tls.settings import TlsSettings

FILE = Path("file")
NO_TLS, TLS = TlsSettings(), TlsSettings(cert=FILE, key=FILE)
MUTUAL = TlsSettings(cert=FILE, key=FILE, client_ca=FILE)
NO_AUTH, KEYS = AuthSettings(), AuthSettings(keys_file=FILE)
EVERYWHERE = ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "example.org:1", "localhost.example.org:1", ":1"]
HERE = ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "localhost:1"]


@pytest.mark.parametrize("address", HERE)
def test_this_machine_needs_nothing(address: str) -> None:
    assert is_loopback(address)
    check_exposure(address, NO_TLS, NO_AUTH, insecure=False)


@pytest.mark.parametrize("address", EVERYWHERE)
@pytest.mark.parametrize(("tls", "auth"), [(TLS, KEYS), (MUTUAL, NO_AUTH)])
def test_the_network_needs_both(address: str, tls: TlsSettings, auth: AuthSettings) -> None:
    check_exposure(address, tls, auth, insecure=False)


@pytest.mark.parametrize("address", EVERYWHERE)
@pytest.mark.parametrize(
    ("tls", "auth", "named"),
    [
        (NO_TLS, NO_AUTH, "--tls.cert.*--auth.keys-file"),
        (NO_TLS, KEYS, "--tls.cert"),
        (TLS, NO_AUTH, "--auth.keys-file"),
    ],
)
def test_what_is_missing_is_named_and_can_be_waived(
    address: str, tls: TlsSettings, auth: AuthSettings, named: str
) -> None:
    with pytest.raises(ConfigError, match=named) as refused:
        check_exposure(address, tls, auth, insecure=False)
    assert "--insecure" in str(refused.value)
    check_exposure(address, tls, auth, insecure=True)
