"""Signed tokens from outside: whom they let in, and that nobody is told why not."""

from __future__ import annotations

import json
import time
from pathlib import Path

import grpc

from longspan.client import AsyncClient
from longspan.server.auth.refusal import Refusal
from tests.auth.issuer import AUDIENCE, ISSUER, Issuer, signed_with_public_key, unsigned
from tests.security.callers import KeysFile, bearer, refusal
from tests.support.serving import serving

METHOD = "/longspan.v1.DocumentService/ListDocuments"


async def test_a_token_is_its_tenant_and_a_bad_one_is_nobody(tmp_path: Path) -> None:
    issuer, file = Issuer(), KeysFile.of(tmp_path, "b")
    key = tmp_path / "jwks.json"
    key.write_text(json.dumps({"keys": [issuer.jwk(kid="1", alg="ES256")]}))
    auth = {
        "keys_file": file.path,
        "jwt_key": key,
        "jwt_algorithms": "ES256",
        "jwt_issuer": ISSUER,
        "jwt_audience": AUDIENCE,
    }
    async with serving(tmp_path / "data", encoder="none", auth=auth) as running:
        async with AsyncClient(running.target, api_key=issuer.token({"kid": "1"})) as client:
            document = await client.upload(b"of a")
            assert [one async for one in client.list()] == [document]
        async with AsyncClient(running.target, api_key=file.keys["b"]) as client:
            assert [one async for one in client.list()] == []
        bad = {
            unsigned(): Refusal.BAD_TOKEN,
            signed_with_public_key(issuer.pem): Refusal.BAD_TOKEN,
            Issuer().token(): Refusal.BAD_TOKEN,
            issuer.token({"kid": "2"}): Refusal.UNKNOWN_KEY,
            issuer.token(exp=time.time() - 120): Refusal.EXPIRED_TOKEN,
            issuer.token(aud="another service"): Refusal.FOREIGN_TOKEN,
            issuer.token(tenant=None): Refusal.NO_TENANT,
        }
        for token in bad:
            refused = await refusal(running.channel, METHOD, bearer(token))
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED
            assert refused.message == "the credential is not valid"
        counts = running.server.application.admission.refusals.counts
        assert {why: count for why, count in counts.items() if count} == {
            why: list(bad.values()).count(why) for why in bad.values()
        }
