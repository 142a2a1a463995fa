"""The files of TLS, read and checked before gRPC sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from longspan.server.errors import ConfigError

MAX_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class TlsFiles:
    """What the port shows, and whom it trusts; all PEM.

    Attributes:
        client_ca: authorities of callers' certificates; None asks for none.
    """

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


def read_tls_files(cert: Path, key: Path, client_ca: Path | None) -> TlsFiles:
    """Read the files; a key must belong to its certificate.

    Raises:
        ConfigError: a file is missing, too long or not what it should be; no key is quoted.
    """
    chain, private = _read("tls.cert", cert), _read("tls.key", key)
    leaf = _certificates("tls.cert", cert, chain)[0]
    try:
        owner = load_pem_private_key(private, password=None).public_key()
    except UnsupportedAlgorithm as error:
        raise ConfigError(f"tls.key {key}: a key of this kind is not supported") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"tls.key {key}: no private key in PEM without a password") from error
    try:
        shown = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tls.cert {cert}: a key of this kind is not supported") from error
    if _bytes(owner) != _bytes(shown):
        raise ConfigError(f"tls.key {key} is not the key of tls.cert {cert}")
    if client_ca is None:
        return TlsFiles(chain, private, None)
    trusted = _read("tls.client_ca", client_ca)
    _certificates("tls.client_ca", client_ca, trusted)
    return TlsFiles(chain, private, trusted)


def _read(name: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name} {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{name} {path}: longer than {MAX_FILE_BYTES} bytes")
    return data


def _certificates(name: str, path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise ConfigError(f"{name} {path}: no certificate in PEM") from error


def _bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
