"""``make demo`` does what it says."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.data import REPOSITORY


def test_the_demo_streams_answers_with_checked_citations_and_stops() -> None:
    pytest.importorskip("torch", reason="needs the embedded encoder")
    done = subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    verdicts = re.findall(r"\[\d+\] bytes \d+-\d+: (\w+)", done.stdout)
    assert len(verdicts) >= 10
    assert set(verdicts) == {"equal"}
    # Passages are embedded while the document still arrives.
    assert re.search(r"uploading .* tokens, +[1-9]\d* of", done.stdout)
    assert "4906 of 4906 document tokens reused" in done.stdout
    assert done.stdout.rstrip().endswith("The server has stopped (exit status 0).")
