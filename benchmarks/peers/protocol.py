"""What a measured engine is asked and answers: one line of JSON each way.

Needs nothing but Python, as an engine may live in another virtual environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Work:
    """Requests that arrive at once.

    Attributes:
        prompts: token ids; the answers are greedy.
        new_tokens: length of every answer.
    """

    prompts: Sequence[Sequence[int]]
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's answer.

    Attributes:
        first_s: seconds from the work's arrival to the first token.
        last_s: seconds from the work's arrival to the last token.
    """

    tokens: Sequence[int]
    first_s: float
    last_s: float


@dataclass(slots=True)
class Clock:
    """Times of one answer's tokens."""

    started: float
    times: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    def token(self, token: int, now: float | None = None) -> None:
        """The answer has another token."""
        self.tokens.append(token)
        self.times.append((time.perf_counter() if now is None else now) - self.started)

    def answer(self) -> Answer:
        """The answer is complete."""
        return Answer(self.tokens, self.times[0], self.times[-1])


Engine = Callable[[Work], Sequence[Answer]]


def serve(start: Callable[[Sequence[str]], Engine]) -> None:
    """Load an engine as the command line says; then answer every line until there are no more.

    Every engine loads and works in one thread: with two, OpenMP keeps a team for each and lets
    both sleep where one would spin. What libraries print goes to standard error.
    """
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    with ThreadPoolExecutor(1) as thread:
        engine = thread.submit(start, sys.argv[1:]).result()
        print(json.dumps({"ready": True}), file=replies)
        for line in sys.stdin:
            answers = thread.submit(engine, Work(**json.loads(line))).result()
            print(json.dumps([asdict(answer) for answer in answers]), file=replies)
