"""What promtool's unit tests in cases/ expect of which alert."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
FIRING = re.compile(r'ALERTS\{alertname="(\w+)",alertstate="firing"')


@cache
def expectations() -> list[tuple[str, dict[str, Any]]]:
    """The alert of each expectation of all cases, and the expectation."""
    found = []
    for path in CASES:
        for test in yaml.safe_load(path.read_text("utf-8"))["tests"]:
            for expected in test["promql_expr_test"]:
                match = FIRING.search(expected["expr"])
                assert match is not None, expected["expr"]
                found.append((match[1], expected))
    return found
