"""A server in a process of its own, as a user would run it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 90.0
# A measurement that repeats a request means it.
NO_RESULTS = ("--result-cache-memory", "0", "--result-cache-disk", "0")


@contextmanager
def server_process(*flags: str, results: bool = False) -> Iterator[int]:
    """Run a server on a free port and a temporary data directory; yield the port.

    Args:
        flags: of the server.
        results: whether its result cache is on.
    """
    if not results:
        flags = (*NO_RESULTS, *flags)
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        command = [sys.executable, "-m", "longspan.server", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", f"{folder}/data", "--ready-file", str(ready)]
        process = subprocess.Popen([*command, "--log-level", "warning", *flags])
        try:
            deadline = time.monotonic() + START_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {process.returncode}")
                time.sleep(0.05)
            yield json.loads(ready.read_text())["port"]
        finally:
            process.terminate()
            process.wait()
