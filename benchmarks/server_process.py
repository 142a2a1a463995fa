"""A server in a process of its own, as a user would run it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

START_S = 90.0
# A measurement that repeats a request means it.
NO_RESULTS = ("--result-cache-memory", "0", "--result-cache-disk", "0")
MIB = 1 << 20


@dataclass(frozen=True)
class RunningServer:
    """A server, and what the operating system counts of it."""

    port: int
    process: psutil.Process

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the server, without its workers."""
        return int(self.process.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the server so far, without its workers."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def server_process(*flags: str, results: bool = False) -> Iterator[int]:
    """Run a server on a free port and a temporary data directory; yield the port.

    Args:
        flags: of the server.
        results: whether its result cache is on.
    """
    if not results:
        flags = (*NO_RESULTS, *flags)
    with running(*flags) as server:
        yield server.port


@contextmanager
def running(*flags: str) -> Iterator[RunningServer]:
    """Run a server with these flags on a free port and a temporary data directory."""
    command = [sys.executable, "-m", "longspan.server", "--log-level", "warning", *flags]
    with tempfile.TemporaryDirectory() as folder, started(command, Path(folder)) as server:
        yield server


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[RunningServer]:
    """Run a command that takes a server's flags, on a free port; stop it with SIGTERM."""
    ready = folder / "ready.json"
    command = [*command, "--listen", "127.0.0.1:0", "--data-dir", f"{folder}/data"]
    process = subprocess.Popen([*command, "--ready-file", str(ready)])
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {process.returncode}")
            time.sleep(0.05)
        port = json.loads(ready.read_text())["port"]
        yield RunningServer(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait()


def allow_files(count: int) -> None:
    """Let this process and those that it starts open so many files.

    Raises:
        RuntimeError: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            raise RuntimeError(f"{count} open files are needed, {hard} allowed: ulimit -Hn")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
