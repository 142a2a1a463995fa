"""TLS on the API port: certificates that rotate, callers that show one, files that are bad."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.client import AsyncClient, ServerUnavailable, Unauthenticated
from longspan.server.config import load_config
from longspan.server.errors import ConfigError
from longspan.server.tls.files import read_tls_files
from tests.client.command import longspan
from tests.e2e.conversation import sending, upload_messages
from tests.security.callers import KeysFile
from tests.security.encrypted import IMPATIENT, ONCE, Encrypted, encrypted, put
from tests.support.certificates import Authority

SPIFFE = "spiffe://example.org/tenant/"
WRITERS = 4
ROTATIONS = 5


async def test_a_client_that_knows_the_authority_is_served(tmp_path: Path) -> None:
    async with encrypted(tmp_path, admin_listen="127.0.0.1:0") as running:
        async with running.client() as client:
            document = await client.upload(b"secret")
            assert await client.read(document) == b"secret"
        async with AsyncClient(running.target, timeout=IMPATIENT, retry=ONCE) as plain:
            with pytest.raises(ServerUnavailable):
                await plain.upload(b"secret")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.server.admin_port}") as admin:
            stub: Any = health_pb2_grpc.HealthStub(admin)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_server_of_another_authority_gets_nothing(tmp_path: Path) -> None:
    async with encrypted(tmp_path, auth={"keys_file": KeysFile.of(tmp_path, "a").path}) as running:
        running.authority = Authority.new()
        async with running.client(api_key="lsk_x") as client:
            with pytest.raises(ServerUnavailable, match="over TLS"):
                await client.upload(b"secret")
        assert not any(running.server.application.admission.refusals.counts.values())


async def test_certificates_rotate_under_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Streams that run go on, no new call fails, and new connections see the new certificate."""
    async with encrypted(tmp_path) as running:
        slow = asyncio.create_task(one_slow_upload(running))
        authorities = [running.authority, *(Authority.new() for _ in range(ROTATIONS))]
        every = b"".join(authority.pem for authority in authorities)
        credentials = grpc.ssl_channel_credentials(every)
        stop = asyncio.Event()
        writers = [
            asyncio.create_task(keep_uploading(running.target, credentials, stop, number))
            for number in range(WRITERS)
        ]
        for authority in authorities[1:]:
            running.rotate(authority)
            await asyncio.sleep(0.1)
            async with running.client() as client:
                assert await client.health()
        stop.set()
        done = await asyncio.gather(*writers)
        assert min(done) > ROTATIONS
        assert await slow == b"x" * SLOW_BYTES
        running.authority = authorities[0]
        async with running.client() as client:
            assert not await client.health()
    assert "Traceback" not in caplog.text


SLOW_BYTES = 20_000


async def one_slow_upload(running: Encrypted) -> bytes:
    """Begun before the first rotation and ended after the last one, on one connection."""

    async def drip() -> Any:
        for _ in range(20):
            yield b"x" * (SLOW_BYTES // 20)
            await asyncio.sleep(0.05)

    async with running.client() as client:
        document = await client.upload(drip())
        return await client.read(document)


async def keep_uploading(
    target: str, credentials: grpc.ChannelCredentials, stop: asyncio.Event, number: int
) -> int:
    """One upload after the other, each over a connection of its own."""
    done = 0
    # Without this, gRPC hands out a connection that it has already.
    options = [("grpc.use_local_subchannel_pool", 1)]
    while not stop.is_set():
        async with grpc.aio.secure_channel(target, credentials, options) as channel:
            call: Any = channel.stream_stream(
                "/longspan.v1.DocumentService/Upload",
                request_serializer=lambda message: message.SerializeToString(),
            )(sending(upload_messages(f"{number} {done}".encode())))
            events = [event async for event in call]
            assert len(events) >= 2
            done += 1
    return done


async def test_half_a_rotation_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate came before its key: what fits together is shown until that is there."""
    async with encrypted(tmp_path) as running:
        before, after = running.authority, Authority.new()
        pair = after.server()
        running.folder.joinpath("server.pem").write_bytes(pair.certificate)
        async with running.client() as client:
            assert await client.health()
        assert "is not the key of" in caplog.text
        put(running.folder, "server", pair)
        running.authority = after
        async with running.client() as client:
            assert await client.health()
        running.authority = before
        async with running.client() as client:
            assert not await client.health()


async def test_a_caller_must_show_a_certificate_that_was_asked_for(tmp_path: Path) -> None:
    callers = Authority.new("callers")
    async with encrypted(tmp_path, callers) as running:
        async with running.client(callers.client("anybody")) as client:
            await client.upload(b"text")
        for stranger in (None, Authority.new("strangers").client("anybody")):
            async with running.client(stranger) as client:
                with pytest.raises(ServerUnavailable):
                    await client.upload(b"text")


async def test_the_authority_of_callers_rotates_too(tmp_path: Path) -> None:
    before, after = Authority.new("callers"), Authority.new("callers")
    async with encrypted(tmp_path, before) as running:
        async with running.client(before.client("a")) as client:
            await client.upload(b"text")
        aside = tmp_path / "aside.pem"
        aside.write_bytes(after.pem)
        aside.replace(tmp_path / "client-ca.pem")
        async with running.client(after.client("a")) as client:
            await client.upload(b"text")
        async with running.client(before.client("a")) as client:
            with pytest.raises(ServerUnavailable):
                await client.upload(b"text")


@pytest.mark.parametrize("part", ["san", "common-name"])
async def test_a_tenant_is_what_its_certificate_says(tmp_path: Path, part: str) -> None:
    callers = Authority.new("callers")
    auth = {"certificate_tenant": part}
    if part == "san":
        auth["certificate_prefix"] = SPIFFE
    a = callers.client("a", "spiffe://example.org/other", f"{SPIFFE}a")
    b = callers.client("b", f"{SPIFFE}b")
    nobody = callers.client("no tenant", SPIFFE, f"{SPIFFE}a", f"{SPIFFE}b")
    async with encrypted(tmp_path, callers, auth=auth) as running:
        async with running.client(a) as client:
            document = await client.upload(b"of a")
            assert [one async for one in client.list()] == [document]
        async with running.client(b) as client:
            assert [one async for one in client.list()] == []
        async with running.client(nobody) as client:
            with pytest.raises(Unauthenticated, match="not valid"):
                await client.upload(b"of nobody")
        refusals = running.server.application.admission.refusals.counts
        assert {one.value: count for one, count in refusals.items() if count} == {"no_tenant": 1}


async def test_a_key_counts_more_than_a_certificate(tmp_path: Path) -> None:
    callers, file = Authority.new("callers"), KeysFile.of(tmp_path, "b")
    auth = {"certificate_tenant": "common-name", "keys_file": file.path}
    async with encrypted(tmp_path, callers, auth=auth) as running:
        async with running.client(callers.client("a")) as client:
            await client.upload(b"of a")
        async with running.client(callers.client("a"), api_key=file.keys["b"]) as client:
            assert [one async for one in client.list()] == []
        async with running.client(callers.client("a"), api_key="lsk_x") as client:
            with pytest.raises(Unauthenticated):
                await client.upload(b"of nobody")


async def test_the_command_line_takes_files(tmp_path: Path) -> None:
    callers = Authority.new("callers")
    async with encrypted(tmp_path, callers) as running:
        ca = tmp_path / "ca.pem"
        ca.write_bytes(running.authority.pem)
        certificate, key = callers.client("a").write(tmp_path, "caller")
        files = ("--tls-ca", str(ca), "--tls-cert", str(certificate), "--tls-key", str(key))
        done = await longspan("docs", "--json", *files, server=running.target)
        assert (done.status, done.out, done.err) == (0, "", "")
        done = await longspan("docs", *files[:4], server=running.target)
        assert (done.status, "--tls-key" in done.err) == (2, True)
        done = await longspan("docs", "--tls-ca", str(tmp_path / "absent"), server=running.target)
        assert (done.status, "No such file" in done.err) == (1, True)


def garbage(path: Path) -> None:
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def another(path: Path) -> None:
    other = path.parent / "other"
    other.mkdir()
    pair = Authority.new().server().write(other, "server")
    pair[path.suffix == ".key"].replace(path)


def endless(path: Path) -> None:
    os.truncate(path, 1 << 30)


NAMES = ("server.pem", "server.key", "ca.pem")
# Another authority is one like the first.
SPOILT = [
    *((name, spoil) for name in NAMES for spoil in (Path.unlink, garbage, endless)),
    *((name, another) for name in NAMES[:2]),
]


@pytest.mark.parametrize(("name", "spoil"), SPOILT)
def test_bad_files_are_named_in_one_line(
    tmp_path: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    certificate, key = Authority.new().server().write(tmp_path, "server")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Authority.new().pem)
    read_tls_files(certificate, key, ca)
    spoil(tmp_path / name)
    with pytest.raises(ConfigError) as refused:
        read_tls_files(certificate, key, ca)
    assert str(tmp_path / name) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "AAAA" not in str(refused.value)


def test_a_key_of_an_unknown_kind_is_named_in_one_line(tmp_path: Path) -> None:
    """OpenSSL knows the curve secp112r1."""
    certificate, key = Authority.new().server().write(tmp_path, "server")
    coded = (
        "MD4CAQEEDgaLZeOU1+4sSpBDkyzBoAcGBSuBBAAGoSADHgAEp0mmY94FNCh+9/UiI6aGh9hp7Cl25UzEpCxOvQ=="
    )
    key.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{coded}\n-----END EC PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match="not supported"):
        read_tls_files(certificate, key, None)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tls.cert", "x"], "go together"),
        (["--tls.client-ca", "x"], "client_ca needs"),
        (["--auth.certificate-tenant", "san"], "client_ca"),
        (["--auth.jwt-key", "x"], "jwt_algorithms"),
        (["--auth.jwt-issuer", "x"], "need jwt_key"),
        (["--auth.jwt-algorithms", "none"], "jwt_algorithms"),
        (["--auth.jwt-algorithms", "RS256,HS256"], "jwt_algorithms"),
        (["--auth.jwt-leeway-s", "61"], "jwt_leeway_s"),
    ],
)
def test_settings_that_do_not_fit_together_are_named(flags: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_config(flags)


def test_a_private_key_is_in_nothing_that_is_printed(tmp_path: Path) -> None:
    certificate, key = Authority.new().server().write(tmp_path, "server")
    assert "PRIVATE" not in repr(read_tls_files(certificate, key, None))
