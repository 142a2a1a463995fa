"""A server with a scripted decoder in a process of its own, whose memory can be looked at."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.generation import generating
from tests.pool.stories import stories
from tests.support.data import REPOSITORY

START_S = 60.0
PEAK, NOW = "VmHWM", "VmRSS"


@dataclass(frozen=True)
class Watched:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def target(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def memory(self, name: str) -> int:
        """Bytes of memory: the peak since ``forget_peak``, or now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(line.split()[1]) << 10

    def forget_peak(self) -> None:
        """Let the peak begin at what is used now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Start one; stop it at the end."""
    ready = folder / "ready"
    command = [sys.executable, "-m", "tests.security.decoder_server", str(folder), str(ready)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + START_S
        while not ready.exists():
            assert process.poll() is None, "it ended"
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.02)
        yield Watched(process, int(ready.read_text()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def _serve(folder: Path, ready: Path) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with generating(folder, stories()) as serving:
        aside = ready.with_suffix(".new")
        aside.write_text(str(serving.server.port))
        aside.replace(ready)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), Path(sys.argv[2])))
