"""Every test that the reliability page names exists."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.data import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))


@cache
def defined(path: str) -> frozenset[str]:
    """Functions and classes at the top of a module."""
    tree = ast.parse((REPOSITORY / path).read_text("utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_named_test_exists(path: str, name: str) -> None:
    assert name in defined(path)


def test_every_promise_names_tests_and_every_fault_has_one() -> None:
    promises = re.findall(r"\*\*P(\d)\.(.*?)(?=\*\*P|\n## )", PAGE, re.DOTALL)
    assert [number for number, _ in promises] == [*"1234567"]
    assert all("::test_" in text for _, text in promises)
    faults = PAGE.partition("\n## Faults")[2].partition("\nMeasured")[0]
    rows = [line for line in faults.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row] == []
