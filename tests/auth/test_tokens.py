"""Signed tokens: what holds, and that nothing else does."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.auth.public_keys import VerifyingKey, read_public_keys
from longspan.server.auth.refusal import Refusal
from longspan.server.auth.tokens import TokenRules, Tokens
from longspan.server.auth.verified import VerifiedTokens
from longspan.server.errors import ConfigError, Unauthenticated
from longspan.server.identity import Tenant
from tests.auth.issuer import (
    AUDIENCE,
    ISSUER,
    Issuer,
    claims,
    signed_with_public_key,
    unsigned,
)

RULES = TokenRules(ISSUER, AUDIENCE, "tenant", leeway_s=30.0)
ISSUED = Issuer()
PUBLIC = VerifyingKey(None, ISSUED.key.public_key(), ("ES256",))
TOKENS = Tokens([PUBLIC], RULES)


def refusal(token: str, tokens: Tokens = TOKENS) -> Refusal:
    with pytest.raises(Unauthenticated) as refused:
        tokens.tenant(token)
    return refused.value.refusal


def test_a_token_names_its_tenant() -> None:
    assert TOKENS.tenant(ISSUED.token()) == "a"
    assert TOKENS.tenant(ISSUED.token(aud=["other", AUDIENCE], tenant="b")) == "b"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exp": time.time() - 3600}, Refusal.EXPIRED_TOKEN),
        ({"exp": None}, Refusal.BAD_TOKEN),
        ({"exp": "soon"}, Refusal.BAD_TOKEN),
        ({"exp": float("inf")}, Refusal.BAD_TOKEN),
        ({"nbf": time.time() + 3600}, Refusal.BAD_TOKEN),
        ({"iat": time.time() + 3600}, Refusal.BAD_TOKEN),
        ({"iss": "https://elsewhere.example.org"}, Refusal.FOREIGN_TOKEN),
        ({"iss": None}, Refusal.BAD_TOKEN),
        ({"aud": "another service"}, Refusal.FOREIGN_TOKEN),
        ({"aud": None}, Refusal.BAD_TOKEN),
        ({"tenant": None}, Refusal.NO_TENANT),
        ({"tenant": 7}, Refusal.NO_TENANT),
        ({"tenant": ["a"]}, Refusal.NO_TENANT),
        ({"tenant": "../b"}, Refusal.NO_TENANT),
    ],
)
def test_what_a_token_must_say(changes: dict[str, Any], expected: Refusal) -> None:
    try:
        token = ISSUED.token(**changes)
    except TypeError:
        # The library refuses to make some of them.
        token = jwt.api_jws.encode(json.dumps(claims(**changes)).encode(), ISSUED.key, "ES256")
    assert refusal(token) is expected


def test_clocks_may_differ_by_the_leeway() -> None:
    assert TOKENS.tenant(ISSUED.token(exp=time.time() - 15)) == "a"
    strict = Tokens([PUBLIC], TokenRules(ISSUER, AUDIENCE, "tenant", leeway_s=0.0))
    assert refusal(ISSUED.token(exp=time.time() - 15), strict) is Refusal.EXPIRED_TOKEN


def test_a_token_that_was_known_expires_all_the_same() -> None:
    strict = Tokens([PUBLIC], TokenRules(ISSUER, AUDIENCE, "tenant", leeway_s=0.0))
    token = ISSUED.token(exp=int(time.time()) + 2)
    assert [strict.tenant(token) for _ in range(3)] == ["a"] * 3
    time.sleep(2.1)
    assert refusal(token, strict) is Refusal.EXPIRED_TOKEN


def test_what_is_remembered_is_bounded_and_ends_in_time() -> None:
    known = VerifiedTokens(most=3)
    for number in range(10):
        known.keep(f"token {number}", Tenant("a"), until_s=100.0 + number)
    assert len(known) == 3
    assert known.find("token 6", 0.0) is None
    assert known.find("token 7", 106.9) == "a"
    assert known.find("token 7", 107.0) is None
    assert known.find("token 8", 107.0) == "a"
    known.keep("token 10", Tenant("b"), until_s=200.0)
    known.keep("token 11", Tenant("b"), until_s=200.0)
    # Used a moment ago, and so kept before the one that was not.
    assert known.find("token 9", 0.0) is None
    assert known.find("token 8", 0.0) == "a"


def test_the_algorithm_is_the_servers_choice() -> None:
    assert refusal(unsigned()) is Refusal.BAD_TOKEN
    assert refusal(signed_with_public_key(ISSUED.pem)) is Refusal.BAD_TOKEN
    larger = ec.generate_private_key(ec.SECP384R1())
    assert refusal(jwt.encode(claims(), larger, "ES384")) is Refusal.BAD_TOKEN


def test_another_issuers_key_does_not_fit() -> None:
    assert refusal(Issuer().token()) is Refusal.BAD_TOKEN


@given(st.text(st.characters(max_codepoint=127), max_size=300))
def test_no_text_is_a_token(text: str) -> None:
    assert refusal(text) in (Refusal.BAD_TOKEN, Refusal.MALFORMED)


@given(st.binary(max_size=200), st.integers(0, 2))
def test_no_part_can_be_replaced(data: bytes, part: int) -> None:
    parts = ISSUED.token().split(".")
    parts[part] = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert refusal(".".join(parts)) is Refusal.BAD_TOKEN


def test_deep_json_and_long_tokens_are_only_bad() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode()
    assert refusal(f"{deep}.{deep[:100]}.x") is Refusal.BAD_TOKEN
    assert refusal("x" * 9000) is Refusal.MALFORMED


def read(folder: Path, data: bytes | dict[str, Any], *pinned: str) -> Sequence[VerifyingKey]:
    path = folder / "key"
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_public_keys(path, pinned)


def public(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def test_a_jwks_has_several_keys_by_name(tmp_path: Path) -> None:
    first, second = Issuer(), Issuer()
    jwks = {"keys": [first.jwk(kid="1"), second.jwk(kid="2"), first.jwk(kid="3", use="enc")]}
    tokens = Tokens(read(tmp_path, jwks, "RS256", "ES256"), RULES)
    assert tokens.tenant(first.token({"kid": "1"})) == "a"
    assert tokens.tenant(second.token({"kid": "2"})) == "a"
    assert refusal(first.token({"kid": "2"}), tokens) is Refusal.BAD_TOKEN
    for name in ("3", "4", None):
        headers = None if name is None else {"kid": name}
        assert refusal(first.token(headers), tokens) is Refusal.UNKNOWN_KEY


def test_a_key_says_what_it_signs(tmp_path: Path) -> None:
    [key] = read(tmp_path, {"keys": [Issuer().jwk(alg="ES256")]}, "ES256", "ES384")
    assert key.algorithms == ("ES256",)
    [key] = read(tmp_path, public(ed25519.Ed25519PrivateKey.generate()), "EdDSA", "ES256")
    assert key.algorithms == ("EdDSA",)
    strong = rsa.generate_private_key(65537, 2048)
    [key] = read(tmp_path, public(strong), "PS256", "ES256", "RS512")
    assert key.algorithms == ("PS256", "RS512")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "neither"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "neither"),
        (b"{", "not a JWKS"),
        ({"keys": 3}, "not a JWKS"),
        ({"keys": []}, "no key"),
        ({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}, "secret"),
        ({"keys": [{"kty": "EC", "crv": "P-256"}]}, "cannot be read"),
        ({"keys": [Issuer().jwk(), Issuer().jwk()]}, "kid"),
        ({"keys": [Issuer().jwk(alg="ES384")]}, "fits"),
        (public(ec.generate_private_key(ec.SECP384R1())), "fits"),
        (public(rsa.generate_private_key(65537, 1024)), "2048"),
    ],
)
def test_what_is_no_public_key_is_refused_at_the_start(
    tmp_path: Path, data: bytes | dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        read(tmp_path, data, "ES256", "RS256")


def test_a_private_key_is_refused(tmp_path: Path) -> None:
    private = jwt.algorithms.ECAlgorithm.to_jwk(Issuer().key, as_dict=True)
    with pytest.raises(ConfigError, match="secret"):
        read(tmp_path, {"keys": [private]}, "ES256")
