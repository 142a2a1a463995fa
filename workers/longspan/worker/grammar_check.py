"""``python -m longspan.worker.grammar_check``: whether a grammar compiles, in a process to kill.

A schema of a few hundred bytes can take llguidance hours. In a worker that would be the end of
everybody's answers; here it is the end of this process. Standard input is a JSON object with
``kind`` and ``source``; a grammar that does not compile is told on standard output, status 1.
"""

from __future__ import annotations

import json
import resource
import sys

from llguidance import LLMatcher, LLTokenizer

from longspan.worker.sampling.grammar_source import (
    BadGrammar,
    check,
    grammar_source,
    parser_limits,
)
from longspan.worker.sampling.params import GrammarKind, GrammarSpec

EXIT_BAD_GRAMMAR = 1
CPU_S = 2
"""Less than the silence after which a worker counts as dead: it compiles the grammar again."""
MEMORY_BYTES = 2 << 30


def main() -> int:
    """Compile what standard input names; return the exit status."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    message = json.load(sys.stdin)
    spec = GrammarSpec(GrammarKind(message["kind"]), message["source"])
    try:
        # Single bytes for tokens: what takes long depends on the grammar alone.
        matcher = LLMatcher(
            LLTokenizer("byte"), grammar_source(spec), log_level=0, limits=parser_limits()
        )
        check(matcher)
    except BadGrammar as error:
        print(error)
        return EXIT_BAD_GRAMMAR
    return 0


if __name__ == "__main__":
    sys.exit(main())
