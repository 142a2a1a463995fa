"""How a chunk's queries are treated where pages are selected: all at once, by pages, or singly.

Pure integers. The bounds are absolute positions, so any way of cutting a sequence into chunks
gives the same blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from longspan.worker.attention.policy import LayerPolicy
from longspan.worker.attention.pool import PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Zones:
    """The parts of a sequence: documents, task, answer.

    Attributes:
        task_start: where the documents end; None while they are arriving.
        answer_start: where the prompt ends; None likewise.
    """

    task_start: int | None = None
    answer_start: int | None = None


NO_ZONES = Zones()


@dataclass(frozen=True, slots=True)
class Block:
    """Queries at [start, end) that see the same pages, but for causality.

    Attributes:
        dense: they see everything.
    """

    start: int
    end: int
    dense: bool


def blocks(start: int, end: int, zones: Zones, policy: LayerPolicy) -> Iterator[Block]:
    """The blocks of the queries at [start, end).

    The documents are cut at pages, which share their selection; the task is dense: it is
    what asks. Each token of the answer is alone, as it was when it was sampled, so that one
    that is computed again gets the same keys.
    """
    dense_end = policy.dense_pages * PAGE_TOKENS
    task = end if zones.task_start is None else zones.task_start
    answer = end if zones.answer_start is None else zones.answer_start
    at = start
    while at < end:
        if at < dense_end:
            block = Block(at, min(end, dense_end), True)
        elif at >= answer:
            block = Block(at, at + 1, False)
        elif at >= task:
            block = Block(at, min(end, answer), True)
        else:
            next_page = (at // PAGE_TOKENS + 1) * PAGE_TOKENS
            block = Block(at, min(end, next_page, task), False)
        page = block.start // PAGE_TOKENS
        few = not block.dense and len(policy.candidates(page)) <= policy.selected_pages
        yield Block(block.start, block.end, True) if few else block
        at = block.end
