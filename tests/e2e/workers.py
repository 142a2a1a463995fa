"""Servers for tests of death and recovery: quick workers in-process, or whole processes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from longspan.server.app import running_server
from longspan.server.config import Config
from longspan.server.identity import DocumentId, Tenant
from longspan.server.pool.config import PoolConfig
from longspan.server.queue.dispatcher import Dispatcher
from tests.support.serving import Serving, base_settings, leaks

START_S = 60.0
SUSPICIOUS = (
    "Traceback",
    "RuntimeWarning",
    "ResourceWarning",
    "never retrieved",
    "never awaited",
    "was destroyed but it is pending",
)


@asynccontextmanager
async def serving_with(
    data_dir: Path,
    pool: PoolConfig | None = None,
    model_pool: PoolConfig | None = None,
    **settings: Any,
) -> AsyncIterator[Serving]:
    """A server over the workers that the pools describe; leaks are checked at the end."""
    base = base_settings(settings, real_workers=pool is None and model_pool is None)
    settings = {**base, "data_dir": data_dir, **settings}
    config = Config(**settings, _cli_parse_args=False)  # type: ignore[call-arg]
    before = set(psutil.Process().children(recursive=True))
    async with (
        running_server(config, pool, model_pool) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        running = Serving(server, channel, config)
        yield running
        await running.settled()
    assert set(psutil.Process().children(recursive=True)) <= before


def dispatcher_of(serving: Serving) -> Dispatcher:
    """The queue before the server's workers."""
    embedder = serving.server.application.embedder
    assert embedder is not None
    return embedder.dispatcher


async def seconds_until_idle(serving: Serving, at_most_s: float) -> float:
    """How long the server goes on working for nobody."""
    started_s = time.monotonic()
    while problems := await leaks(serving.server):
        lasted_s = time.monotonic() - started_s
        assert lasted_s < at_most_s, f"after {lasted_s:.1f} s: {problems}"
        await asyncio.sleep(0.01)
    return time.monotonic() - started_s


async def forget_index(serving: Serving, document_id: str, tenant: str = "default") -> None:
    """Make the next question build the index again."""
    app = serving.server.application
    assert app.indexes is not None
    assert app.embedder is not None
    document = await app.library.document(Tenant(tenant), DocumentId(document_id))
    app.indexes.forget(document.document_id)
    app.library.vault.index(document, app.embedder.model.fingerprint).unlink(missing_ok=True)


@contextmanager
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when something went wrong unnoticed: an error in the log, a task nobody awaited."""
    caplog.set_level(logging.ERROR)
    yield
    gc.collect()
    errors = [
        message
        for record in caplog.get_records("call")
        # grpc.aio's poller may still look for the loop of a test that has ended.
        if "PollerCompletionQueue._handle_events" not in (message := record.getMessage())
    ]
    assert errors == []


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class ServerProcess:
    """``python -m longspan.server`` on a fixed port, to be killed and started again.

    Args:
        folder: holds the data directory, the log and the ready file.
        options: flags beside those for the address and the folder.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.target = f"127.0.0.1:{self.port}"
        self._options = options
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "server.log"

    async def start(self) -> None:
        """Start it; return when it serves."""
        ready = self._folder / "ready.json"
        ready.unlink(missing_ok=True)
        self._process = self._run(ready)
        async with asyncio.timeout(START_S):
            while not ready.exists():
                assert self._process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.01)
        assert json.loads(ready.read_text())["port"] == self.port

    def _run(self, ready: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-W", "default", "-m", "longspan.server"]
        command += ["--listen", self.target, "--data-dir", str(self._folder / "data")]
        command += ["--ready-file", str(ready), *self._options]
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stderr=log, stdout=log)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def started(self) -> bool:
        """True once there is a process, which may not serve yet."""
        return self._process is not None

    def children(self) -> list[psutil.Process]:
        """Its worker processes."""
        assert self._process is not None
        return list(psutil.Process(self._process.pid).children(recursive=True))

    async def wait(self, timeout_s: float) -> int:
        """The exit status."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, timeout_s)

    async def kill(self) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL)
        await self.wait(10.0)

    def close(self) -> None:
        """Make sure that it is gone, and that its log holds nothing suspicious."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        log = self.log.read_text()
        assert not [word for word in SUSPICIOUS if word in log], log


@asynccontextmanager
async def server_process(folder: Path, *options: str) -> AsyncIterator[ServerProcess]:
    """A running server process."""
    server = ServerProcess(folder, *options)
    try:
        await server.start()
        yield server
    finally:
        server.close()
