"""Debian's promtool, which the tests need."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run it in a folder; skips the test where it is not installed.

    Returns:
        What it printed on both streams.
    """
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: .ci/servers installs it")
    # It makes a database for every test.
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout
