"""Measures on long text what a window would lose, and makes a policy of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from longspan.worker.attention.policy import FULL_MODEL, LayerPolicy
from longspan.worker.attention.policy_file import PolicyFile
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.fidelity import sampling
from longspan.worker.fidelity.calibration import Choice, LayerLoss, chosen, described
from longspan.worker.fidelity.document import Document, hidden
from longspan.worker.fidelity.grid import Pieces
from longspan.worker.fidelity.losses import Losses
from longspan.worker.fidelity.needle import random_needle
from longspan.worker.fidelity.prompt import Prompter
from longspan.worker.fidelity.reading import Reading, Tokens, chunks
from longspan.worker.fidelity.session import Session
from longspan.worker.generation.runner import attention_rows

LEAST, AMPLE = 2, 8
"""Lengths in windows: below the first nothing can be told, below the second little."""


class Calibration:
    """Reads documents under full attention and notes what a window would lose.

    Looks that a text itself asks for and looks for an answer are taken apart, and the worse
    counts: heads that fetch what is asked for are quiet while a text is read
    (DuoAttention, arXiv:2410.10819).
    """

    def __init__(self, session: Session, prompter: Prompter, window: LayerPolicy) -> None:
        self._session = session
        self._prompter = prompter
        self._text, self._answers = Losses(window), Losses(window)

    def read(self, document: Document) -> None:
        """Read one document, its question and the right answer."""
        reading = Reading(self._session, FULL_MODEL, document.zones)
        tokens, end = document.tokens, document.task_start
        spans = list(chunks(0, end, self._session.step_tokens))
        watched = sampling.watched(spans, end)
        for span in spans:
            losses = self._text if span in watched else None
            self._step(reading, tokens[: span[1]], span[0], losses, len(watched))
        self._step(reading, tokens, end, self._answers, 1)
        whole = np.concatenate((tokens, document.prompt.answer))
        self._step(reading, whole, len(tokens), self._answers, 1)

    def losses(self) -> list[LayerLoss | None]:
        """What was noted, by layer."""
        return [self._loss(index) for index in range(len(self._session.shapes))]

    def _step(
        self, reading: Reading, tokens: Tokens, start: int, losses: Losses | None, steps: int
    ) -> None:
        """Read from ``start`` to the end of ``tokens``."""
        new, observer = tokens[start:], None
        if losses is not None:
            rows = attention_rows((reading.chunk(start, new),))
            sampled = sampling.sampled((start, len(tokens)), steps)
            observer = losses.observer(rows, reading.view.zones, sampled)
        reading.step(start, new, observer=observer)

    def _loss(self, index: int) -> LayerLoss | None:
        kv_heads = self._session.shapes[index].kv_heads
        both = [
            noted.layers[index].by_kv_head(kv_heads)
            for noted in (self._text, self._answers)
            if index in noted.layers
        ]
        if not both:
            return None
        lost, error = (np.max(numbers, axis=0) for numbers in zip(*both, strict=True))
        return LayerLoss(tuple(map(float, lost)), tuple(map(float, error)))


def calibrated(
    session: Session,
    prompter: Prompter,
    pieces: Pieces,
    choice: Choice,
    *,
    name: str,
    length: int,
    depths: Sequence[float],
) -> PolicyFile:
    """The policy that the measurements give, with their numbers.

    Raises:
        StartFailure: the text is too short to tell, or no depth lies outside the window.
    """
    check_length(choice.window, length)
    far = far_depths(choice.window, length, depths)
    calibration = Calibration(session, prompter, choice.window)
    for depth in far:
        needle = random_needle(f"calibration {length} {depth}")
        calibration.read(hidden(prompter, pieces(), needle, length=length, depth=depth))
    losses = calibration.losses()
    found: dict[str, Any] = {
        "model": session.files.name,
        "dtype": str(session.dtype).removeprefix("torch."),
        "tokens": length,
        "depths": list(far),
        "window_tokens": window_tokens(choice.window),
        "note": shortness(choice.window, length),
        "keep_mass": choice.keep_mass,
        "full_layers": choice.full_layers,
        "layers": described(losses, choice.keep_mass),
    }
    return PolicyFile(name, chosen(losses, choice), session.files.fingerprint, found)


def check_length(window: LayerPolicy, length: int) -> None:
    """Refuse a text that a window sees most of.

    Raises:
        StartFailure: says how long it must be.
    """
    if length < LEAST * window_tokens(window):
        raise StartFailure(
            f"{length} tokens are too short to tell what a window of {window_tokens(window)} "
            f"loses; at least {LEAST * window_tokens(window)} are needed"
        )


def shortness(window: LayerPolicy, length: int) -> str | None:
    """What must be said of a text that tells little; None where it is long enough."""
    if length >= AMPLE * window_tokens(window):
        return None
    return (
        f"short: {length} tokens are {length / window_tokens(window):.1f} times what the window "
        "sees; layers that look further back were not put to the test"
    )


def window_tokens(window: LayerPolicy) -> int:
    """What a window sees at most, the first pages with it."""
    return (window.prefix_pages + window.window_pages + 1) * PAGE_TOKENS


def far_depths(window: LayerPolicy, length: int, depths: Sequence[float]) -> tuple[float, ...]:
    """The depths that lie outside of the window and of the first pages, for the question.

    Raises:
        StartFailure: there is none.
    """
    first = window.prefix_pages * PAGE_TOKENS / length
    last = 1 - (window.window_pages + 2) * PAGE_TOKENS / length
    far = tuple(depth for depth in depths if first < depth < last)
    if not far:
        raise StartFailure(
            f"no depth lies outside of what the window sees: between {max(first, 0):.2f} and "
            f"{max(last, 0):.2f} at {length} tokens"
        )
    return far
