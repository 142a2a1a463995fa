"""A worker process that is a fork of a template (``longspan.worker.template``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 4096
FORK_S = 10.0
# Of a process whose template died before it could tell.
UNKNOWN_STATUS = 255


class ForkedProcess:
    """Has what ``ChildProcess`` uses of ``asyncio.subprocess.Process``.

    Attributes:
        pid: of the fork, which is a child of the template.
        returncode: its exit status, negative for a signal; None while it runs.
        stdin: the end of a pipe that only we hold.
        stderr: what it writes.
    """

    def __init__(self, pid: int, pidfd: int, stdin: FileIO, stderr: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = stdin
        self.stderr = stderr
        self._pidfd = pidfd
        self._ended = asyncio.Event()

    @classmethod
    async def start(cls, template: Path, arguments: Sequence[str]) -> ForkedProcess:
        """Ask the template for a fork.

        Args:
            template: its socket.
            arguments: of the worker, without the program.

        Raises:
            OSError: there is no template, or it does not answer.
        """
        with contextlib.ExitStack() as on_failure:
            connection, stdin, stderr = request_fork(template, arguments)
            on_failure.callback(connection.close)
            on_failure.callback(stdin.close)
            reader = await _reading(stderr)
            message, descriptors = await _receive(connection)
            if len(descriptors) != 1:
                raise OSError("the template did not fork")
            process = cls(message["pid"], descriptors[0], stdin, reader)
            on_failure.pop_all()
        process._watch(connection)
        return process

    async def wait(self) -> int:
        """The exit status."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM.

        Raises:
            ProcessLookupError: it has ended.
        """
        signal.pidfd_send_signal(self._signalled(), signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL.

        Raises:
            ProcessLookupError: it has ended.
        """
        signal.pidfd_send_signal(self._signalled(), signal.SIGKILL)

    def _signalled(self) -> int:
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        return self._pidfd

    def _watch(self, connection: socket.socket) -> None:
        """Learn from the template how the process ends."""

        def tell() -> None:
            loop.remove_reader(connection.fileno())
            self.returncode = _status(connection)
            connection.close()
            os.close(self._pidfd)
            self._ended.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(connection.fileno(), tell)


def request_fork(template: Path, arguments: Sequence[str]) -> tuple[socket.socket, FileIO, FileIO]:
    """Ask a template for a fork; what comes back is not waited for.

    Returns:
        The connection that the template answers on, without waiting where it is read, and our ends
        of the worker's standard input and error.

    Raises:
        OSError: there is no template.
    """
    with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as theirs:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        on_failure.callback(connection.close)
        connection.connect(str(template))
        connection.setblocking(False)
        stdin, stdin_ours = os.pipe()
        theirs.callback(os.close, stdin)
        ours_in = on_failure.enter_context(FileIO(stdin_ours, "wb"))
        stderr_ours, stderr = os.pipe()
        theirs.callback(os.close, stderr)
        ours_err = on_failure.enter_context(FileIO(stderr_ours, "rb"))
        request = {"arguments": list(arguments), "folder": str(Path.cwd())}
        socket.send_fds(connection, [json.dumps(request).encode()], [stdin, stderr])
        on_failure.pop_all()
    return connection, ours_in, ours_err


def _status(connection: socket.socket) -> int:
    try:
        data = connection.recv(MESSAGE_BYTES)
    except OSError:
        data = b""
    return int(json.loads(data)["status"]) if data else UNKNOWN_STATUS


async def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """One message of the template and its descriptors; empty when it is gone."""
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(connection.fileno(), readable.set_result, None)
    try:
        async with asyncio.timeout(FORK_S):
            await readable
    finally:
        loop.remove_reader(connection.fileno())
    data, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1)
    return (json.loads(data) if data else {}), list(descriptors)


async def _reading(pipe: FileIO) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader
