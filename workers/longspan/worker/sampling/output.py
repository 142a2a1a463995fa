"""The answer of one sequence: tokens go in, text that may be shown and the end come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from longspan.worker.generation.outcomes import FinishReason
from longspan.worker.sampling.answer_stops import AnswerStops
from longspan.worker.sampling.detokeniser import Detokeniser
from longspan.worker.sampling.grammar import Constraint
from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.row import SamplingRow


@dataclass(frozen=True, slots=True)
class Step:
    """What one token did: text to show, and why it was the last one if it was."""

    text: str
    finish: FinishReason | None = None


class Output:
    """Everything between a sampled token and the text that leaves the worker.

    It depends on the tokens alone, so a replay of them leaves it as it was.

    Args:
        params: of the request.
        detokeniser: fresh.
        stop_tokens: the model's own, which end the reasoning too; those of the request count
            in the answer.
        constraint: fresh, or None for free text.

    Attributes:
        params: as given.
        index: tokens so far.
        finish: why the answer ended; None while it goes on.
    """

    def __init__(
        self,
        params: SamplingParams,
        detokeniser: Detokeniser,
        stop_tokens: Iterable[int],
        constraint: Constraint | None = None,
    ) -> None:
        self.params = params
        self.index = 0
        self.finish: FinishReason | None = None
        self._detokeniser = detokeniser
        self._model_stops = frozenset(stop_tokens)
        self._stops = AnswerStops(params.stop_texts, params.answer_begins)
        self._constraint = constraint

    def row(self) -> SamplingRow:
        """How the next token is to be chosen.

        Raises:
            BadGrammar: see ``Constraint.mask``.
        """
        mask = self._constraint.mask() if self._constraint else None
        return SamplingRow(self.params, self.index, mask)

    def push(self, token: int) -> Step:
        """Take the next token.

        Raises:
            BadGrammar: see ``Constraint.accept``.
        """
        assert self.finish is None
        self.index += 1
        if self._is_stop(token):
            return self._end("", FinishReason.STOP)
        if self._constraint:
            self._constraint.accept(token)
        text, stopped = self._stops.push(self._detokeniser.push(token))
        if stopped:
            self.finish = FinishReason.STOP
            return Step(text, self.finish)
        if self._constraint and self._constraint.finished:
            return self._end(text, FinishReason.STOP)
        if self.index >= self.params.max_tokens:
            return self._end(text, FinishReason.LENGTH)
        return Step(text)

    def replay(self, tokens: Iterable[int]) -> FinishReason | None:
        """Take tokens whose text was delivered before; returns why they are all, if they are.

        Raises:
            BadGrammar: see ``Constraint.accept``.
            ValueError: they go on behind the answer's end.
        """
        for token in tokens:
            if self.finish is not None:
                raise ValueError(f"delivered tokens go on behind the end at {self.index}")
            self.push(token)
        return self.finish

    def cut(self) -> str:
        """The rest of the text where something else, as the context, ended the answer."""
        assert self.finish is None
        return self._end("", FinishReason.LENGTH).text

    def _is_stop(self, token: int) -> bool:
        if token in self._model_stops:
            return True
        if token not in self.params.stop_tokens:
            return False
        return self._stops.counts(blank=self._detokeniser.is_blank(token))

    def _end(self, text: str, finish: FinishReason) -> Step:
        """The last text: what was held back is shown unless it completes a stop."""
        rest, stopped = self._stops.push(self._detokeniser.finish())
        self.finish = FinishReason.STOP if stopped else finish
        return Step(text + rest + ("" if stopped else self._stops.flush()), self.finish)
