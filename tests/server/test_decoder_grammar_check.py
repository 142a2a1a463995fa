"""Grammars are compiled in a process that can be killed before a worker sees them."""

from __future__ import annotations

import json

import pytest

from longspan.server.decoder.grammar_check import GrammarCheck
from longspan.server.decoder.options import GenerationOptions
from longspan.server.errors import InvalidRequest

HOPELESS = {"allOf": [{"type": "string", "pattern": f"(.*a.{{{n}}})"} for n in range(20)]}


@pytest.fixture(autouse=True)
def _llguidance() -> None:
    pytest.importorskip("llguidance", reason="needs the worker's libraries")


async def test_a_grammar_that_compiles_passes_and_is_remembered() -> None:
    """The second time no process is started: a limit of no time at all does not matter."""
    checks = GrammarCheck()
    options = GenerationOptions(json_schema='{"type": "object"}')
    await checks.check(options)
    checks._longest_s = 0.0
    await checks.check(options)
    await checks.check(GenerationOptions())


@pytest.mark.parametrize(
    ("options", "field", "reason"),
    [
        (GenerationOptions(json_schema='{"type": "nothing"}'), "json_schema", "nothing"),
        (GenerationOptions(regex="(a"), "regex", "unclosed"),
        (GenerationOptions(json_schema=json.dumps(HOPELESS)), "json_schema", "too much"),
    ],
)
async def test_a_grammar_that_does_not_compile_is_refused(
    options: GenerationOptions, field: str, reason: str
) -> None:
    """What is wrong is told; one that takes for ever is given up."""
    with pytest.raises(InvalidRequest, match=reason) as refused:
        await GrammarCheck().check(options)
    assert refused.value.field == f"task.generation.{field}"
