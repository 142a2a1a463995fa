"""A server in a process of its own, which tests stop, kill and start again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

START_S = 60.0


@dataclass
class ServerProcess:
    """One running ``longspan serve``."""

    process: subprocess.Popen[bytes]
    port: int

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *flags: str, port: int = 0) -> Iterator[Self]:
        """Start it on ``folder``; stop it with SIGTERM if it still runs."""
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "longspan.server", "--listen", f"127.0.0.1:{port}"]
        command += ["--data-dir", str(folder / "data"), "--ready-file", str(ready)]
        process = subprocess.Popen([*command, "--log-level", "warning", *flags])
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                assert process.poll() is None, f"the server ended: {process.returncode}"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.02)
            yield cls(process, json.loads(ready.read_text())["port"])
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
