"""Grammars are compiled in a process that can be killed before a worker sees them."""

from __future__ import annotations

import json
import sys

import pytest

from longspan.server.decoder import grammar_check
from longspan.server.decoder.grammar_check import GrammarCheck
from longspan.server.decoder.options import GenerationOptions
from longspan.server.errors import InvalidRequest

HOPELESS = {"allOf": [{"type": "string", "pattern": f"(.*a.{{{n}}})"} for n in range(20)]}


@pytest.fixture(autouse=True)
def _llguidance() -> None:
    pytest.importorskip("llguidance", reason="needs the worker's libraries")


@pytest.mark.parametrize("schema", ['{"type": "object"}', "{}", "true", " true\n"])
async def test_a_grammar_that_compiles_passes_and_is_remembered(schema: str) -> None:
    """The second time no process is started: a limit of no time at all does not matter."""
    checks = GrammarCheck()
    options = GenerationOptions(json_schema=schema)
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


@pytest.mark.parametrize(
    "command",
    [
        ("sleep", "60"),
        ("sh", "-c", "kill -KILL $$"),
        (sys.executable, "-c", "raise MemoryError"),
    ],
)
async def test_a_check_that_came_to_no_end_is_not_held_against_the_grammar(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """A machine may be busy for a moment, and a check may be killed; the next one decides."""
    checks = GrammarCheck(longest_s=1.0 if command[0] == "sleep" else 20.0)
    options = GenerationOptions(json_schema='{"type": "boolean"}')
    with monkeypatch.context() as patch:
        patch.setattr(grammar_check, "COMMAND", command)
        with pytest.raises(InvalidRequest, match="too much time or memory"):
            await checks.check(options)
    checks._longest_s = 20.0
    await checks.check(options)


async def test_a_grammar_that_does_not_compile_is_remembered() -> None:
    """The second time no process is started, and the words are the same."""
    checks = GrammarCheck()
    options = GenerationOptions(regex="(a")
    with pytest.raises(InvalidRequest) as first:
        await checks.check(options)
    checks._longest_s = 0.0
    with pytest.raises(InvalidRequest) as second:
        await checks.check(options)
    assert str(second.value) == str(first.value)
    assert "too much" not in str(second.value)
