"""Attention transfer: maps that make a layer's output what full attention makes it.

The first stage of LoLCATs (Zhang et al., 2024, arXiv:2410.10254): each layer alone, its inputs
those of the unchanged model, the squared error of its output. No weight of the model is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.distil.lesson import Lesson, lesson
from longspan.worker.distil.looks import looks
from longspan.worker.distil.schedule import Schedule
from longspan.worker.fidelity.reading import Tokens
from longspan.worker.fidelity.session import Session


@dataclass(frozen=True, slots=True)
class LayerError:
    """Relative error of a layer's output on a sequence that was not learnt from.

    Attributes:
        none: without any far state.
        centroids: with those of ``hierarchical``, which need no maps.
        untrained: with maps as they begin.
        distilled: with those that came of it.
    """

    none: float
    centroids: float
    untrained: float
    distilled: float

    def __str__(self) -> str:
        return (
            f"error {self.none:.3f} without far states, {self.centroids:.3f} with centroids, "
            f"{self.untrained:.3f} untrained, {self.distilled:.3f} distilled"
        )


def linear_layers(session: Session, policy: ModelPolicy) -> list[int]:
    """Layers that need maps: those with a window of their own see no far page."""
    return [i for i in sorted(policy.linear_layers) if session.shapes[i].window is None]


class Distilling:
    """The maps of a model's layers, while they are trained.

    Args:
        session: the model, with pages for the longest sequence.
        policy: whose far states they are for.

    Attributes:
        maps: of each layer.
    """

    def __init__(self, session: Session, policy: ModelPolicy, schedule: Schedule) -> None:
        self._session = session
        self._policy = policy
        self._schedule = schedule
        self.maps = {index: self._untrained(index) for index in linear_layers(session, policy)}
        self._optimisers = {
            index: torch.optim.Adam(maps.parameters(), schedule.rate)
            for index, maps in self.maps.items()
        }

    def learn(self, sequences: Iterable[Tokens]) -> Iterator[float]:
        """Train on each sequence; yields the mean squared error of the layers behind each."""
        done = 0
        for tokens in sequences:
            lessons = self._lessons(tokens, self.maps)
            if done == 0:
                self._weigh(lessons)
            errors = [self._train(index, one, done) for index, one in lessons.items()]
            done += self._schedule.steps
            yield sum(errors) / len(errors)

    @torch.no_grad()
    def errors(self, tokens: Tokens) -> dict[int, LayerError]:
        """How far each layer is from full attention on one sequence."""
        found = {}
        for index, one in self._lessons(tokens, self.maps).items():
            outs = (
                one.near.out,
                one.with_centroids().out,
                one.attended(self._untrained(index)).out,
                one.attended(self.maps[index]).out,
            )
            found[index] = LayerError(*(float(one.error(out).sqrt()) for out in outs))
        return found

    def _untrained(self, index: int) -> Hedgehog:
        shape = self._session.shapes[index]
        return Hedgehog(shape.heads, shape.kv_heads, shape.d).to(self._session.device)

    @torch.no_grad()
    def _weigh(self, lessons: Mapping[int, Lesson]) -> None:
        """Begin with far states that weigh what the keys weigh that they stand for, on average.

        It may be e^10 times what untrained features give, which steps of a rate do not reach.
        """
        for index, one in lessons.items():
            missing = one.far_lse - one.linear(self.maps[index]).lse
            self.maps[index].factor_bias.add_(missing.mean((0, 1)))

    def _lessons(self, tokens: Tokens, layers: Collection[int]) -> dict[int, Lesson]:
        seen = looks(self._session, tokens, layers)
        return {index: lesson(seen[index], self._policy.layer(index)) for index in layers}

    def _train(self, index: int, one: Lesson, done: int) -> float:
        maps, optimiser = self.maps[index], self._optimisers[index]
        error = 0.0
        for step in range(done, done + self._schedule.steps):
            for group in optimiser.param_groups:
                group["lr"] = self._schedule.at(step)
            loss = one.error(one.attended(maps).out)
            optimiser.zero_grad()
            torch.autograd.backward([loss])
            optimiser.step()
            error = float(loss.detach())
        return error
