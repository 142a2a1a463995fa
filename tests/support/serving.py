"""A real server in this process: real sockets, real worker processes, checked accounts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from longspan.server.app import Server, running_server
from longspan.server.config import Config
from longspan.server.queue.stats import DispatcherStats
from longspan.v1 import (
    cache_service_pb2_grpc,
    document_service_pb2_grpc,
    inference_service_pb2_grpc,
)
from tests.support.template import template_socket

SETTLE_S = 5.0
# Tests that repeat a request mean it: the result cache is for those that turn it on.
BASE_SETTINGS: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "drain_s": 2.0,
    "result_cache_memory": 0,
    "result_cache_disk": 0,
}


def base_settings(settings: Mapping[str, Any], *, real_workers: bool = True) -> dict[str, Any]:
    """What a server under test has unless ``settings`` say otherwise.

    Args:
        settings: what they say.
        real_workers: it starts some itself; they are forks of the tests' template then.
    """
    if not real_workers or settings == {"encoder": "none"}:
        return BASE_SETTINGS
    return {**BASE_SETTINGS, "worker_template": template_socket()}


@dataclass(frozen=True)
class Serving:
    """The server under test and a channel to it."""

    server: Server
    channel: grpc.aio.Channel
    config: Config

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server.port}"

    @property
    def documents(self) -> document_service_pb2_grpc.DocumentServiceAsyncStub:
        """A raw stub, for calls that no well-behaved client makes."""
        return document_service_pb2_grpc.DocumentServiceStub(self.channel)

    @property
    def inference(self) -> inference_service_pb2_grpc.InferenceServiceAsyncStub:
        """A raw stub."""
        return inference_service_pb2_grpc.InferenceServiceStub(self.channel)

    @property
    def caches(self) -> cache_service_pb2_grpc.CacheServiceAsyncStub:
        """A raw stub."""
        return cache_service_pb2_grpc.CacheServiceStub(self.channel)

    async def settled(self) -> None:
        """Wait until nothing runs, then check that nothing was left behind.

        Raises:
            AssertionError: a stream, build, job, sequence or file leaked.
        """
        deadline = asyncio.get_running_loop().time() + SETTLE_S
        while problems := await leaks(self.server):
            assert asyncio.get_running_loop().time() < deadline, f"leaked: {problems}"
            await asyncio.sleep(0.02)


async def leaks(server: Server) -> dict[str, object]:
    """Everything that should be zero when no call runs."""
    app = server.application
    # A stream that ended between its upload's row and its file leaves an upload of no bytes.
    spools = len(app.library.vault.spools()) - await app.library.count_uploads()
    counts: dict[str, object] = {
        "calls": app.admission.active,
        "upload streams": app.desk.streams,
        "spool files without an upload": max(0, spools),
    }
    if app.indexes is not None:
        counts["builds"] = app.indexes.builds
    if app.embedder is not None:
        counts |= _work(app.embedder.dispatcher.stats(), "job")
    if app.decoder is not None:
        counts |= _work(app.decoder.dispatcher.stats(), "sequence")
    return {name: count for name, count in counts.items() if count}


def _work(stats: DispatcherStats, kind: str) -> dict[str, object]:
    return {
        f"queued {kind}s": stats.queued_jobs,
        f"callers of a {kind}": stats.waiting,
        f"{kind}s in flight": sum(worker.jobs for worker in stats.in_flight),
        f"KV pages of a {kind}": sum(worker.used_pages for worker in stats.in_flight),
    }


@asynccontextmanager
async def serving(data_dir: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Run a server on a free port; leaks are checked before it stops."""
    settings = {**base_settings(settings), "data_dir": data_dir, **settings}
    config = Config(**settings, _cli_parse_args=False)  # type: ignore[call-arg]
    async with running_server(config) as server:
        options = [("grpc.max_send_message_length", 8 << 20)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
            running = Serving(server, channel, config)
            yield running
            await running.settled()
