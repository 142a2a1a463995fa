"""One process a test run whose forks most workers are; starting each afresh takes seconds."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from io import BufferedReader, BufferedWriter, TextIOWrapper
from pathlib import Path
from typing import TextIO

from longspan.server.pool.forked import request_fork

START_S = 120.0


@functools.cache
def template_socket() -> Path:
    """Where the template listens; the first call starts it."""
    folder = Path(tempfile.mkdtemp(prefix="longspan-"))
    path = folder / "template.sock"
    command = [sys.executable, "-m", "longspan.worker.template", "--socket", str(path)]
    command += ["--watch-stdin"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    atexit.register(_stop, process, folder)
    deadline = time.monotonic() + START_S
    while not _listens(path):
        assert process.poll() is None, "the template ended"
        assert time.monotonic() < deadline, "the template did not start"
        time.sleep(0.02)
    return path


class ForkedPopen:
    """A worker process that is a fork of the template, used like ``subprocess.Popen``.

    Args:
        arguments: of the worker.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._connection, stdin, stderr = request_fork(template_socket(), arguments)
        self._connection.settimeout(START_S)
        data, [self._pidfd], _, _ = socket.recv_fds(self._connection, 4096, 1)
        self.pid: int = json.loads(data)["pid"]
        self.stdin: TextIO | None = TextIOWrapper(BufferedWriter(stdin))
        self.stderr: TextIO | None = TextIOWrapper(BufferedReader(stderr))
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""
        try:
            return self.wait(0.0)
        except TimeoutError:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended.

        Raises:
            TimeoutError: it still runs.
        """
        if self._status is None:
            self._connection.settimeout(timeout)
            try:
                self._status = int(json.loads(self._connection.recv(4096))["status"])
            except BlockingIOError as error:
                raise TimeoutError from error
            self._connection.close()
            os.close(self._pidfd)
        return self._status

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it runs."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, sig)

    def terminate(self) -> None:
        """Send SIGTERM, if it runs."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, if it runs."""
        self.send_signal(signal.SIGKILL)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)
    shutil.rmtree(folder)
