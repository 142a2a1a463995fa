"""Bytes and sizes that no client of ours sends."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from longspan.server.config import Config, load_config
from longspan.server.errors import ConfigError
from longspan.server.listener import check_free
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import upload_pb2
from tests.e2e.workers import quiet_log
from tests.support.serving import serving

DOCUMENTS = "/longspan.v1.DocumentService"


def reason(error: Any) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return str(info.reason)


async def send_rubbish(channel: Any, method: str) -> None:
    path = f"{DOCUMENTS}/{method}"
    if method == "GetDocument":
        await channel.unary_unary(path)(b"\xff\xff\xff")
    elif method == "ReadDocument":
        [_ async for _ in channel.unary_stream(path)(b"\xff\xff\xff")]
    else:
        call = channel.stream_stream(path)()
        await call.write(b"\xff\xff\xff")
        [_ async for _ in call]


@pytest.mark.parametrize("method", ["GetDocument", "Upload", "ReadDocument"])
async def test_what_is_no_message_is_an_invalid_request(
    tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet_log(caplog):
        async with serving(tmp_path, encoder="none") as running:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send_rubbish(running.channel, method)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason(refused.value) == "INVALID_REQUEST"


async def test_a_long_id_does_not_destroy_the_status(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await running.documents.GetDocument(pb.GetDocumentRequest(document_id="x" * 500_000))
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        assert reason(missing.value) == "DOCUMENT_MISSING"


async def test_an_upload_of_which_nothing_was_kept_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path, encoder="none") as running:
        call: Any = running.documents.Upload()
        await call.write(pb.UploadRequest(header=upload_pb2.UploadHeader(title="nothing")))
        await call.done_writing()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            [_ async for _ in call]
        assert reason(ended.value) == "UPLOAD_INCOMPLETE"
        await running.settled()
        library = running.server.application.library
        assert await library.count_uploads() == 0
        assert library.vault.spools() == []


def test_a_port_in_use_is_found_out_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        started = time.monotonic()
        with pytest.raises(ConfigError, match="in use"):
            check_free(f"127.0.0.1:{holder.getsockname()[1]}")
        assert time.monotonic() - started < 1.0


async def test_a_ready_file_without_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ready_file"):
        async with serving(tmp_path, encoder="none", ready_file=tmp_path / "no" / "ready.json"):
            pass


def test_chunks_must_fit_into_messages() -> None:
    with pytest.raises(ConfigError, match="message_bytes"):
        load_config(["--limits.chunk-bytes", "5000000"])
    config: Config = load_config(
        ["--limits.chunk-bytes", "5000000", "--limits.message-bytes", "6000000"]
    )
    assert config.limits.chunk_bytes == 5_000_000
