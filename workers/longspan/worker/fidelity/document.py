"""A document of a wanted length with a needle at a wanted depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
import numpy.typing as npt

from longspan.worker.attention.zones import Zones
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.needle import Needle
from longspan.worker.fidelity.prompt import Prompt, Prompter

Tokens = npt.NDArray[np.uint32]
BATCH = 256
"""Pieces that are tokenised at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """What one measurement reads.

    Attributes:
        prompt: what stands around the document.
        tokens: the whole prompt.
        zones: where the document ends, and the prompt.
    """

    needle: Needle
    prompt: Prompt
    tokens: Tokens
    zones: Zones

    @property
    def task_start(self) -> int:
        """Where the document ends."""
        assert self.zones.task_start is not None
        return self.zones.task_start


def hidden(
    prompter: Prompter, pieces: Iterable[str], needle: Needle, *, length: int, depth: float
) -> Document:
    """A prompt of at most ``length`` tokens, the needle after ``depth`` (0 to 1) of its document.

    Raises:
        StartFailure: the pieces have too few tokens, or the prompt around them too many.
    """
    prompt = prompter.prompt(needle)
    room = length - len(prompt.head) - len(prompt.task)
    if room < length // 2:
        raise StartFailure(f"a length of {length} tokens leaves too little room for a document")
    taken, counts = _take(prompter, pieces, room - len(prompter.encode(needle.sentence)))
    tokens = _joined(prompter, taken, counts, needle, depth)
    while len(tokens) > room:  # words at the seams of pieces may take a token more
        taken, counts = taken[:-1], counts[:-1]
        tokens = _joined(prompter, taken, counts, needle, depth)
    task = len(prompt.head) + len(tokens)
    whole = np.concatenate((prompt.head, tokens, prompt.task))
    return Document(needle, prompt, whole, Zones(task, len(whole)))


def _take(prompter: Prompter, pieces: Iterable[str], room: int) -> tuple[list[str], list[int]]:
    """As many pieces as fit, and their tokens."""
    taken: list[str] = []
    counts: list[int] = []
    source, total = iter(pieces), 0
    while batch := [piece for _, piece in zip(range(BATCH), source, strict=False)]:
        for piece, tokens in zip(batch, prompter.counts(batch), strict=True):
            total += tokens
            if total > room:
                return taken, counts
            taken.append(piece)
            counts.append(tokens)
    raise StartFailure(
        f"the text has about {total} tokens and is too short to tell: {room} are needed"
    )


def _joined(
    prompter: Prompter, taken: Sequence[str], counts: Sequence[int], needle: Needle, depth: float
) -> Tokens:
    before = [0, *accumulate(counts)]
    place = int(np.searchsorted(before, depth * before[-1]))
    text = "".join(chain(taken[:place], [needle.sentence], taken[place:]))
    return prompter.encode(text)
