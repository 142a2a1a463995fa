"""Calls of methods that there are none of, named in ways that no library would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from longspan.v1 import document_service_pb2 as docs
from tests.security.http2 import answer, call_of
from tests.support.serving import serving

UNIMPLEMENTED = b"12"


@pytest.mark.parametrize("path", [b"/\xff/x", b"/\x1b[31m/\xc3", b"\xfe", b"/longspan.v1.\xff/x"])
async def test_a_path_that_is_no_text_ends_that_call_alone(tmp_path: Path, path: bytes) -> None:
    async with serving(tmp_path, encoder="none", admin_listen="127.0.0.1:0") as running:
        assert running.server.admin_port is not None
        for port in (running.server.admin_port, running.server.port):
            for _ in range(3):
                heard = await answer(port, call_of(path), b"grpc-message")
                assert b"grpc-status\x02" + UNIMPLEMENTED in heard
        request = docs.ListDocumentsRequest()
        await running.documents.ListDocuments(request, timeout=10)
        no_such: Any = running.channel.unary_unary("/no/Such")
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await no_such(b"", timeout=10)
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
