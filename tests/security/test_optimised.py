"""Nothing that protects is an ``assert``, which ``python -O`` leaves out."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import grpc
import pytest

from longspan.v1 import document_service_pb2_grpc
from tests.e2e.raw_calls import Refusal, chunk, header, whole
from tests.e2e.test_bad_start import last_line
from tests.security.callers import KeysFile, Metadata
from tests.support.data import REPOSITORY
from tests.support.process import ServerProcess

SERVER = REPOSITORY / "server" / "longspan" / "server"
PROTECTING = [
    *(
        path
        for folder in ("auth", "tls", "rates")
        for path in sorted((SERVER / folder).glob("*.py"))
    ),
    *(SERVER / name for name in ("exposure.py", "identity.py", "limits.py", "reloaded.py")),
    *(
        SERVER / "services" / f"{name}.py"
        for name in ("admission", "auth_interceptor", "one_message", "pacing", "places")
    ),
    *(SERVER / "upload" / name for name in ("machine.py", "desk.py")),
    SERVER / "decoder" / "options.py",
]


@pytest.mark.parametrize("path", PROTECTING, ids=lambda path: str(path.relative_to(SERVER)))
def test_no_check_is_an_assertion(path: Path) -> None:
    found = [
        node.lineno for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.Assert
    ]
    assert found == []


def ended(port: int, messages: list[Any], metadata: Metadata | None) -> Refusal | None:
    """How an upload ends."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = document_service_pb2_grpc.DocumentServiceStub(channel)
        try:
            for _ in stub.Upload(iter(messages), metadata=metadata):
                pass
        except grpc.RpcError as error:
            return Refusal.of(error)
    return None


def test_without_assertions_the_same_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    keys = KeysFile.of(tmp_path, "a")
    flags = ("--encoder", "none", "--auth.keys-file", str(keys.path))
    limits = ("--limits.chunk-bytes", "1000", "--limits.document-bytes", "2000")
    large = [header(), chunk(0, bytes(1001))]
    with ServerProcess.running(tmp_path, *flags, *limits) as server:
        tries: list[tuple[list[Any], Metadata | None, str | None]] = [
            (whole(b"text"), keys.sent("a"), None),
            (whole(b"text"), None, "UNAUTHENTICATED"),
            (whole(b"text"), (("authorization", "Bearer x"),), "UNAUTHENTICATED"),
            (large, keys.sent("a"), "CHUNK_TOO_LARGE"),
            ([header(declared_bytes=2001)], keys.sent("a"), "DOCUMENT_TOO_LARGE"),
            ([chunk(0, b"x")], keys.sent("a"), "INVALID_REQUEST"),
        ]
        for messages, metadata, expected in tries:
            refusal = ended(server.port, messages, metadata)
            assert (refusal and refusal.reason) == expected
    exposed = last_line("--listen", "0.0.0.0:0", *flags)
    assert "--tls.cert" in exposed
    assert "--insecure" in exposed
