"""A real Redis: started on a free port, killed, stopped, started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 10.0


def free_port() -> int:
    """A port that nobody listens on now, nor on the one that a cluster adds to it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = int(one.getsockname()[1])
    return port if port < 50_000 else port - 20_000


class RedisProcess:
    """One server that keeps nothing on disk.

    Args:
        folder: where it runs.
        options: more of its own options.

    Raises:
        FileNotFoundError: no Redis is installed.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise FileNotFoundError("redis-server is not installed")
        self.port = free_port()
        self._folder = folder
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--appendonly", "no", "--dir", str(folder), *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As the server's configuration has it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; return when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "redis.log").read_text())
            time.sleep(0.01)

    def command(self, *words: str) -> bytes:
        """One inline command; the first bytes of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(65536)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def redis_process(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """A running Redis.

    Raises:
        FileNotFoundError: none is installed.
    """
    redis = RedisProcess(folder, *options)
    try:
        redis.start()
        yield redis
    finally:
        redis.kill()
