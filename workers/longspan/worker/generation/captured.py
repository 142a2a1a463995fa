"""Which decode steps are replayed from graphs, and in which groups. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from longspan.worker.attention.decode_attention import can_decode, sees_all_before, selects_from
from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.generation.plan import Chunk


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of a decode step that one graph computes.

    Attributes:
        policy: what they see; of rows that see everything by now it is the full one.
        rows: their indices in the step.
    """

    policy: ModelPolicy
    rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Where the rows of a policy have graphs.

    Attributes:
        whole: rows before this position see everything.
        first: rows from this position on have graphs of the policy; None: none has.
    """

    whole: int
    first: int | None


def captured_groups(chunks: Sequence[Chunk]) -> list[Group] | None:
    """The chunks of a decode step by what their graphs compute; None where some chunk has none.

    Policies of a worker are told apart by their names; all that see everything are one.
    """
    groups: dict[str, Group] = {}
    # A policy has as many parts as the model has layers: looked at once a step, not once a row.
    known: dict[int, _Reach] = {}
    for index, chunk in enumerate(chunks):
        if not decodes(chunk):
            return None
        policy = chunk.view.policy
        if id(policy) not in known:
            known[id(policy)] = _reach(policy)
        reach = known[id(policy)]
        # The last token of a task may come alone as well, and sees everything.
        answer = chunk.view.zones.answer_start or 0
        if chunk.start < reach.whole:
            groups.setdefault("", Group(FULL_MODEL)).rows.append(index)
        elif reach.first is None or chunk.start < max(answer, reach.first):
            return None
        else:
            groups.setdefault(policy.name, Group(policy)).rows.append(index)
    return list(groups.values())


def decodes(chunk: Chunk) -> bool:
    """True for a chunk of one token that is sampled from."""
    return chunk.samples and len(chunk.tokens) == 1


def _reach(policy: ModelPolicy) -> _Reach:
    if policy.full:
        return _Reach(sys.maxsize, None)
    first = selects_from(policy) if can_decode(policy) else None
    return _Reach(sees_all_before(policy), first)
