"""An engine's process, from the side of the measurement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

from benchmarks.peers.protocol import Answer, Work
from benchmarks.texts import REPOSITORY

ERROR_CHARS = 2000


class EngineFailed(Exception):
    """The engine could not start, or died; the end of what it said."""


class EngineProcess:
    """Runs one engine: ``python -m MODULE ARGUMENTS…`` with a number of threads.

    Raises:
        EngineFailed: it did not start.
    """

    def __init__(
        self, module: str, *arguments: str, threads: int, python: str = sys.executable
    ) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            cwd=REPOSITORY,
            env=environment,
        )
        try:
            self._reply()
        except EngineFailed:
            self.close()
            raise

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Whose memory can be looked at."""
        return self._process.pid

    def answer(self, work: Work) -> list[Answer]:
        """Do the work, all of it.

        Raises:
            EngineFailed: it died.
        """
        stdin = _pipe(self._process.stdin)
        print(json.dumps(asdict(work)), file=stdin, flush=True)
        return [Answer(**answer) for answer in self._reply()]

    def close(self) -> None:
        """End the process."""
        _pipe(self._process.stdin).close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _pipe(self._process.stdout).close()
        self._errors.close()

    def _reply(self) -> Sequence[dict[str, Any]]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise EngineFailed(self._errors.read()[-ERROR_CHARS:].strip())
        replies: Sequence[dict[str, Any]] = json.loads(line)
        return replies


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
