"""A request's grammar as llguidance takes it. No model is needed, and no torch."""

from __future__ import annotations

import json
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from longspan.worker.sampling.params import GrammarKind, GrammarSpec

WHITESPACE = r"[\x20\x0A\x0D\x09]{1,32}"
"""Between the parts of JSON; bounded, or a model could go on with blanks for ever."""

ANYTHING = "{}"
"""The schema that the boolean ``true`` stands for; llguidance puts its options into an object."""

AFTER_REASONING = "start: blank? @{answer}\nblank: /[ \\t\\r\\n]{{1,8}}/"
"""White space may stand between the text that a grammar begins after and what it governs."""


class BadGrammar(Exception):
    """A grammar does not compile, grew too large, or cannot go on; llguidance says why."""


def grammar_source(spec: GrammarSpec) -> str:
    """The grammar in llguidance's own language.

    Raises:
        BadGrammar: it is no such schema.
    """
    if spec.kind is GrammarKind.REGEX:
        grammar = LLMatcher.grammar_from_regex(spec.source)
    else:
        options: Any = {"whitespace_pattern": WHITESPACE}
        source = ANYTHING if spec.source.strip() == "true" else spec.source
        try:
            grammar = LLMatcher.grammar_from_json_schema(source, overrides=options)
        except ValueError as error:
            raise BadGrammar(str(error)) from error
    if not spec.begins_after:
        return grammar
    (answer,) = json.loads(grammar)["grammars"]
    start = {"lark_grammar": AFTER_REASONING.format(answer=answer["name"])}
    return json.dumps({"grammars": [start, answer]})


def parser_limits() -> LLParserLimits:
    """llguidance's own limits, with short messages."""
    return LLParserLimits(verbose_errors=False)


def check(matcher: LLMatcher) -> None:
    """Raise what the matcher has against its grammar or its last token.

    Raises:
        BadGrammar: there is something.
    """
    if matcher.is_error():
        raise BadGrammar(matcher.get_error())
