"""A server process for one command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from longspan.client._config import Timeout
from longspan.client._exceptions import ServerUnavailable
from longspan.client._sync_client import Client

START_S = 180.0
# A decoder may have to be downloaded first.
MODEL_START_S = 4 * 3600.0
STOP_S = 30.0
POLL_S = 0.05


@contextmanager
def local_server(data_dir: Path | None, model: str | None = None) -> Iterator[str]:
    """Start a server on a free port, wait until it serves, stop it afterwards.

    Args:
        data_dir: where it keeps documents; None is a temporary folder.
        model: the decoder it loads, a folder or an id of the hub; None is none.

    Yields:
        Host and port.

    Raises:
        ServerUnavailable: it ended, or does not serve in time; the message has its last words.
    """
    with _ending_on_sigterm(), tempfile.TemporaryDirectory(prefix="longspan-") as folder:
        log_path, ready_path = Path(folder, "log"), Path(folder, "ready")
        process = _start(data_dir or Path(folder, "data"), model, ready_path, log_path)
        end_s = time.monotonic() + (START_S if model is None else MODEL_START_S)
        try:
            target = _wait_until_ready(process, ready_path, log_path, end_s)
            _wait_until_serving(process, target, log_path, end_s)
            yield target
        finally:
            _stop(process)


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    # The default handler would end this process and leave the server behind.
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _start(
    data_dir: Path, model: str | None, ready_path: Path, log_path: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "longspan.server", "--listen", "127.0.0.1:0"]
    command += ["--data-dir", str(data_dir), "--ready-file", str(ready_path)]
    command += [] if model is None else ["--model", model]
    with log_path.open("wb") as log:
        # A group of its own: Ctrl-C is for this process, which then stops the server.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _wait_until_ready(
    process: subprocess.Popen[bytes], ready_path: Path, log_path: Path, end_s: float
) -> str:
    while not ready_path.exists():
        _check(process, log_path, end_s)
    return f"127.0.0.1:{json.loads(ready_path.read_text('utf-8'))['port']}"


def _wait_until_serving(
    process: subprocess.Popen[bytes], target: str, log_path: Path, end_s: float
) -> None:
    with Client(target, timeout=Timeout(connect=10.0)) as client:
        while not client.health():
            _check(process, log_path, end_s)


def _check(process: subprocess.Popen[bytes], log_path: Path, end_s: float) -> None:
    try:
        status = process.wait(POLL_S)
    except subprocess.TimeoutExpired:
        if time.monotonic() < end_s:
            return
        raise ServerUnavailable("the local server does not serve in time") from None
    lines = log_path.read_text("utf-8", errors="replace").strip().splitlines() or ["no message"]
    raise ServerUnavailable(f"the local server ended with status {status}: {lines[-1]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
