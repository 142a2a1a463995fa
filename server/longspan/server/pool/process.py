"""A child process that is watched, and never outlives its owner unnoticed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from pathlib import Path

from longspan.server.pool.forked import ForkedProcess
from longspan.server.pool.stderr_line import parse_line
from longspan.server.pool.stderr_tail import StderrTail

_log = logging.getLogger(__name__)


class ChildProcess:
    """One running process, its standard error going to the log.

    Its standard input stays open and silent: the end of it tells the process that the
    server is gone, even by SIGKILL.
    """

    def __init__(self, process: Process | ForkedProcess, name: str) -> None:
        self.pid = process.pid
        self._process = process
        self._name = name
        self._tail = StderrTail()
        self._reader = asyncio.create_task(self._read_stderr())

    @classmethod
    async def start(
        cls, argv: Sequence[str], name: str, template: Path | None = None
    ) -> ChildProcess:
        """Execute a program (no fork of this process's state).

        Args:
            argv: the program and its arguments.
            name: for the log.
            template: the socket of a process that is forked instead, if it answers;
                ``argv`` is ``[python, "-m", "longspan.worker", ...]`` then.

        Raises:
            OSError: the program cannot be executed.
        """
        if template is not None:
            try:
                return cls(await ForkedProcess.start(template, argv[3:]), name)
            except (OSError, TimeoutError) as error:
                _log.warning("%s: template %s: %s; started afresh", name, template, error)
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=DEVNULL, stderr=PIPE
        )
        return cls(process, name)

    async def wait(self) -> int:
        """The exit status; negative for a signal."""
        return await self._process.wait()

    async def exits_within(self, timeout_s: float) -> bool:
        """True when the process is gone before the time is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        return self._process.returncode is not None

    def terminate(self) -> None:
        """Send SIGTERM, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def reap(self) -> tuple[int, str]:
        """Kill it if need be; return its exit status and last line of standard error."""
        self.kill()
        status = await self._process.wait()
        # A grandchild may hold the pipe open: do not wait for its end for ever.
        await asyncio.wait({self._reader}, timeout=0.5)
        self._reader.cancel()
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status, self._tail.last()

    async def _read_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while data := await stream.read(4096):
            for line in self._tail.feed(data):
                said = parse_line(line)
                log = logging.getLogger(said.logger or __name__)
                log.log(
                    said.level, "%s: %s", self._name, said.message, extra={"worker": self._name}
                )
