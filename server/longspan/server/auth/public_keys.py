"""The public keys that tokens are checked with, and which signatures each can make."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from longspan.server.errors import ConfigError

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey

MAX_FILE_BYTES = 1 << 20
MIN_RSA_BITS = 2048
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """One key.

    Attributes:
        key_id: ``kid`` of a JWKS; None in PEM.
        algorithms: the pinned ones that fit the key; never empty.
    """

    key_id: str | None
    key: PublicKey
    algorithms: tuple[str, ...]


def read_public_keys(path: Path, pinned: Sequence[str]) -> tuple[VerifyingKey, ...]:
    """The keys of a PEM or JWKS file.

    Raises:
        ConfigError: the file cannot be read, or holds something else than public keys that
            fit the pinned algorithms.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"auth.jwt_key {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"auth.jwt_key {path}: longer than {MAX_FILE_BYTES} bytes")
    try:
        if data.lstrip().startswith(b"{"):
            return _of_jwks(data, pinned)
        return (_verifying(None, _of_pem(data), pinned),)
    except ValueError as error:
        raise ConfigError(f"auth.jwt_key {path}: {error}") from error


def _of_pem(data: bytes) -> object:
    try:
        return load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("neither a public key in PEM nor a JWKS") from None


def _of_jwks(data: bytes, pinned: Sequence[str]) -> tuple[VerifyingKey, ...]:
    try:
        items = json.loads(data)["keys"]
        found = [_of_jwk(item, pinned) for item in items if item.get("use", "sig") == "sig"]
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError):
        raise ValueError("not a JWKS") from None
    if not found:
        raise ValueError("no key in it is for signatures")
    names = [one.key_id for one in found]
    if len(found) > 1 and (None in names or len(set(names)) < len(names)):
        raise ValueError("several keys need a 'kid' each")
    return tuple(found)


def _of_jwk(item: dict[str, Any], pinned: Sequence[str]) -> VerifyingKey:
    # A secret that both sides know would let every reader of this file make tokens.
    if item.get("kty") == "oct" or "d" in item:
        raise ValueError("it holds a secret key; tokens are checked with public keys alone")
    try:
        key: object = jwt.PyJWK(item).key
    except (jwt.PyJWTError, ValueError, TypeError):
        raise ValueError("a key of it cannot be read") from None
    allowed = [name for name in pinned if item.get("alg", name) == name]
    key_id = item.get("kid")
    return _verifying(key_id if isinstance(key_id, str) else None, key, allowed)


def _verifying(key_id: str | None, key: object, allowed: Sequence[str]) -> VerifyingKey:
    if not isinstance(key, PublicKey):
        raise ValueError("a key of this kind signs no tokens")
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"an RSA key of fewer than {MIN_RSA_BITS} bits is not safe")
    fitting = tuple(name for name in allowed if name in _can_make(key))
    if not fitting:
        raise ValueError("none of auth.jwt_algorithms fits the key")
    return VerifyingKey(key_id, key, fitting)


def _can_make(key: PublicKey) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return _RSA
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset({_CURVES.get(key.curve.name, "")})
    return frozenset({"EdDSA"})
