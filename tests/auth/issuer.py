"""An issuer of signed tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://issuer.example.org", "longspan"


@dataclass(frozen=True)
class Issuer:
    """Signs with a key of its own."""

    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def pem(self) -> bytes:
        """The public key."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def jwk(self, **fields: str) -> dict[str, Any]:
        """The public key as a JWK."""
        made = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {**made, **fields}

    def token(self, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that holds, with changed claims; those that are None are left out."""
        return jwt.encode(claims(**changes), self.key, "ES256", headers=headers)


def claims(**changes: Any) -> dict[str, Any]:
    """What a token that holds says."""
    said = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + 600, "tenant": "a", **changes}
    return {name: value for name, value in said.items() if value is not None}


def unsigned(**changes: Any) -> str:
    """A token of the algorithm ``none``."""
    return f"{_part({'alg': 'none', 'typ': 'JWT'})}.{_part(claims(**changes))}."


def signed_with_public_key(pem: bytes) -> str:
    """The public key used as a shared secret, which fools whoever takes the token's word."""
    signing = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(claims())}"
    return f"{signing}.{_encoded(hmac.digest(pem, signing.encode(), hashlib.sha256))}"


def _part(value: dict[str, Any]) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
