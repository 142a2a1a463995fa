"""Which decode steps are replayed from graphs, and in which groups. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from longspan.worker.attention.decode_attention import can_decode, selects_from
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.generation.plan import Chunk


def captured_groups(chunks: Sequence[Chunk]) -> list[list[int]] | None:
    """The chunks of a decode step by policy, as indices; None where some chunk has no graph.

    Policies of a worker are told apart by their names; all that see everything are one.
    """
    groups: dict[str, list[int]] = {}
    # A policy has as many parts as the model has layers: looked at once a step, not once a row.
    known: dict[int, tuple[str, int | None]] = {}
    for index, chunk in enumerate(chunks):
        if not decodes(chunk):
            return None
        policy = chunk.view.policy
        if id(policy) not in known:
            known[id(policy)] = _captured(policy)
        name, first = known[id(policy)]
        # The last token of a task may come alone as well, and sees everything.
        answer = chunk.view.zones.answer_start or 0
        if first is None or (name and chunk.start < max(answer, first)):
            return None
        groups.setdefault(name, []).append(index)
    return list(groups.values())


def decodes(chunk: Chunk) -> bool:
    """True for a chunk of one token that is sampled from."""
    return chunk.samples and len(chunk.tokens) == 1


def _captured(policy: ModelPolicy) -> tuple[str, int | None]:
    """The policy's group, and the first position that has a graph; None where none has."""
    if policy.full:
        return "", 0
    return policy.name, selects_from(policy) if can_decode(policy) else None
