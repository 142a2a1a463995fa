"""A call without a good key is refused before anything of it is read."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.client import (
    AsyncClient,
    Client,
    PlaintextKey,
    RetryPolicy,
    Timeout,
    Unauthenticated,
)
from longspan.server.auth.api_keys import new_key
from longspan.server.auth.refusal import Refusal
from longspan.server.config import load_config
from longspan.server.errors import ConfigError
from longspan.server.identity import Tenant
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import upload_pb2
from tests.client.command import longspan
from tests.e2e.conversation import reason, store, tenant
from tests.e2e.raw_calls import upload
from tests.security.callers import KeysFile, Metadata, bearer, methods, path_of, refusal
from tests.support.serving import Serving, serving

MISSING, INVALID = "no credential was sent", "the credential is not valid"
SERVING = health_pb2.HealthCheckResponse.SERVING
CHUNK = b"x" * (1 << 20)
CHUNKS = 200


@asynccontextmanager
async def keyed(
    folder: Path, *tenants: str, **settings: Any
) -> AsyncIterator[tuple[Serving, KeysFile]]:
    """A server that only stores, and the keys to it."""
    file = KeysFile.of(folder, *(tenants or ("a", "b")))
    settings = {"encoder": "none", "auth": {"keys_file": file.path}, **settings}
    async with serving(folder / "data", **settings) as running:
        yield running, file


def counts(running: Serving) -> dict[Refusal, int]:
    found = running.server.application.admission.refusals.counts
    return {refusal: count for refusal, count in found.items() if count}


async def test_every_method_wants_a_key(tmp_path: Path) -> None:
    async with keyed(tmp_path) as (running, _):
        paths = [path_of(method) for method in methods()]
        assert len(paths) > 9
        for path in paths:
            refused = await refusal(running.channel, path, None)
            assert refused.code is grpc.StatusCode.UNAUTHENTICATED, path
            assert (refused.reason, refused.message) == ("UNAUTHENTICATED", MISSING)
        assert counts(running) == {Refusal.MISSING: len(paths)}


async def test_callers_without_a_key_name_no_series(tmp_path: Path) -> None:
    async with keyed(tmp_path) as (running, _):
        for number in range(5):
            refused = await refusal(running.channel, f"/longspan.v1.Made/Up{number}", None)
            assert refused.code is grpc.StatusCode.UNIMPLEMENTED
        metrics = running.server.application.metrics
        named = {
            sample.labels["method"]
            for family in metrics.registry.collect()
            for sample in family.samples
            if "method" in sample.labels
        }
        assert named == set()


async def test_what_is_wrong_with_a_key_is_counted_and_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with keyed(tmp_path) as (running, file):
        wrong = file.keys["a"][:-2] + "xx"
        tries: list[tuple[Metadata, Refusal]] = [
            (bearer(wrong), Refusal.WRONG_KEY),
            (bearer(new_key(Tenant("a")).key), Refusal.UNKNOWN_KEY),
            (bearer("lsk_"), Refusal.MALFORMED),
            (bearer("eyJhbGciOiJub25lIn0.e30."), Refusal.MALFORMED),
            ((("authorization", file.keys["a"]),), Refusal.MALFORMED),
            ((("authorization", "Basic YTpi"),), Refusal.MALFORMED),
            ((*file.sent("a"), *file.sent("b")), Refusal.MALFORMED),
        ]
        for metadata, _ in tries:
            refused = await refusal(running.channel, "/longspan.v1.CacheService/Stats", metadata)
            assert (refused.code, refused.message) == (grpc.StatusCode.UNAUTHENTICATED, INVALID)
        expected = dict.fromkeys((why for _, why in tries), 0)
        for _, why in tries:
            expected[why] += 1
        assert counts(running) == expected
    assert "wrong_key" in caplog.text
    assert wrong[21:] not in caplog.text


async def test_an_upload_without_a_key_is_not_read(tmp_path: Path) -> None:
    """It is told so while it sends; what the connection takes unread is a few chunks."""
    async with keyed(tmp_path) as (running, _):
        taken: list[int] = []
        events, refused = await upload(running, endless(taken))
        assert refused is not None
        assert (refused.code, events) == (grpc.StatusCode.UNAUTHENTICATED, [])
        assert len(taken) < CHUNKS / 4


def endless(taken: list[int]) -> Iterator[docs.UploadRequest]:
    """More than fits anywhere, counting what is taken."""
    for number in range(CHUNKS):
        taken.append(number)
        yield docs.UploadRequest(chunk=upload_pb2.Chunk(offset=number * len(CHUNK), data=CHUNK))


async def test_a_tenant_is_its_key_whatever_it_claims(tmp_path: Path) -> None:
    async with keyed(tmp_path) as (running, file):
        claims_b = (*file.sent("a"), *tenant("b"))
        document = await store(running.documents, b"of a", claims_b)
        request = docs.GetDocumentRequest(document_id=document.document_id)
        await running.documents.GetDocument(request, metadata=file.sent("a"))
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await running.documents.GetDocument(request, metadata=file.sent("b"))
        assert reason(missing.value) == "DOCUMENT_MISSING"


def test_claimed_tenants_and_keys_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trust_tenant_metadata"):
        load_config(["--auth.keys-file", str(tmp_path), "--trust-tenant-metadata", "true"])


async def test_the_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new key comes in, a removed one goes out; a broken file changes nothing."""
    async with keyed(tmp_path, "a") as (running, file):
        file.add("b")
        async with asyncio.timeout(10):
            await let_in(running, file.sent("b"), True)
        file.path.write_text("half a li")
        async with asyncio.timeout(10):
            while "not reloaded" not in caplog.text:
                assert await lets_in(running, file.sent("a"))
                await asyncio.sleep(0.1)
        file.remove("a")
        async with asyncio.timeout(10):
            await let_in(running, file.sent("a"), False)
        assert await lets_in(running, file.sent("b"))


async def let_in(running: Serving, metadata: Metadata, wanted: bool) -> None:
    while await lets_in(running, metadata) != wanted:  # noqa: ASYNC110 (of another module's clock)
        await asyncio.sleep(0.1)


async def lets_in(running: Serving, metadata: Metadata) -> bool:
    try:
        await running.documents.ListDocuments(docs.ListDocumentsRequest(), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
            raise
        return False
    return True


async def test_health_is_told_to_anybody_but_not_for_long(tmp_path: Path) -> None:
    """A stream that stays open takes one of the server's places: it needs a key."""
    async with keyed(tmp_path, admin_listen="127.0.0.1:0") as (running, file):
        stub: Any = health_pb2_grpc.HealthStub(running.channel)
        request = health_pb2.HealthCheckRequest()
        assert (await stub.Check(request)).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Watch(request).read()
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        watching = stub.Watch(request, metadata=file.sent("a"))
        assert (await watching.read()).status == SERVING
        watching.cancel()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as admin:
            stub = health_pb2_grpc.HealthStub(admin)
            assert (await stub.Check(request)).status == SERVING


async def test_both_clients_send_their_key(tmp_path: Path) -> None:
    async with keyed(tmp_path) as (running, file):
        async with AsyncClient(running.target, api_key=file.keys["a"]) as client:
            document = await client.upload(b"of a")
            assert [one.document_id async for one in client.list()] == [document.document_id]
        async with AsyncClient(running.target) as client:
            with pytest.raises(Unauthenticated, match=MISSING):
                await client.upload(b"x" * (8 << 20))

        def blocking() -> list[Any]:
            with Client(running.target) as client, pytest.raises(Unauthenticated):
                client.upload(b"x" * (8 << 20))
            with Client(running.target, api_key=file.keys["b"]) as client:
                return list(client.list())

        assert await asyncio.to_thread(blocking) == []


async def test_the_command_line_takes_the_key_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keyed(tmp_path, "a") as (running, file):
        made = await longspan("keys", "new", "--tenant", "c", "--file", str(file.path))
        assert made.status == 0, made.err
        done = await longspan("docs", "--json", "--api-key", file.keys["a"], server=running.target)
        assert (done.status, done.out) == (0, "")
        done = await longspan("docs", server=running.target)
        assert (done.status, done.err) == (1, f"longspan: {MISSING}\n")
    assert file.path.read_text().splitlines()[0] == file.lines["a"]
    assert file.path.read_text().splitlines()[1].split()[1] == "c"


async def test_no_proxy_is_shown_what_is_for_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the key, in plain text, to a localhost of its own."""
    once: Any = {"timeout": Timeout(connect=5.0), "retry": RetryPolicy(attempts=1)}
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        async with keyed(tmp_path) as (running, file):
            monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.getsockname()[1]}")
            async with AsyncClient(running.target, api_key=file.keys["a"], **once) as client:
                assert [one async for one in client.list()] == []

            def blocking() -> list[Any]:
                with Client(running.target, api_key=file.keys["a"], **once) as client:
                    return list(client.list())

            assert await asyncio.to_thread(blocking) == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_does_not_leave_the_machine_unencrypted(kind: Any) -> None:
    for target in (
        "10.0.0.1:50051",
        "example.org:50051",
        "dns:///example.org:1",
        "localhost.org:1",
        "dns://127.0.0.1:53/example.org",
    ):
        with pytest.raises(PlaintextKey):
            kind(target, api_key="lsk_x")
        with pytest.raises(PlaintextKey):
            kind(target, metadata={"Authorization": "Bearer x"})
        kind(target, api_key="lsk_x", plaintext_key=True)
        kind(target, api_key="lsk_x", tls=True)
        kind(target, metadata={"longspan-tenant": "x"})
    for target in ("localhost:50051", "127.0.0.1:1", "[::1]:1", "ipv4:127.0.0.1:1", "unix:/x"):
        kind(target, api_key="lsk_x")
    for key in ("", "two words", "line\n", "é"):
        with pytest.raises(ValueError, match="printable"):
            kind(api_key=key)
