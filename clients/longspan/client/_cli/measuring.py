"""Runs the program that measures fidelity, and reads what it tells while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

PROGRAM = "longspan.worker.fidelity"
EXIT_ERROR, EXIT_USAGE = 1, 2
Event = dict[str, Any]


class Failed(Exception):
    """The program has ended with an error, which it has told on standard error itself.

    Attributes:
        status: what this command ends with.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"the measurement ended with status {status}")
        self.status = status


def events(arguments: Sequence[str]) -> Iterator[Event]:
    """What the program tells, as it comes. It runs in a process of its own, because torch is
    heavy, and ends with this one.

    Raises:
        Failed: it ended with an error.
    """
    if find_spec("torch") is None:
        print("longspan: fidelity needs torch: pip install 'longspan[worker]'", file=sys.stderr)
        raise Failed(EXIT_ERROR)
    command = [sys.executable, "-m", PROGRAM, "--watch-stdin", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
    if status:
        raise Failed(EXIT_USAGE if status == EXIT_USAGE else EXIT_ERROR)
