"""Which jobs are refused, and why."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from longspan.worker.encoding.admission import JobRefused, Reason, TextRules, check_room
from longspan.worker.encoding.job import JobId
from longspan.worker.encoding.scheduler import Scheduler
from longspan.worker.limits import WAITING_JOBS, StepLimits

RULES = TextRules(max_tokens=8, vocabulary=100, dimension=384)


def text(*ids: int) -> bytes:
    """Token ids as they travel."""
    return struct.pack(f"<{len(ids)}I", *ids)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], Reason.EMPTY_JOB),
        ([text(1), b""], Reason.EMPTY_TEXT),
        ([text(1, 2, 3, 4, 5, 6, 7)], Reason.TEXT_TOO_LONG),
        ([text(1), text(100)], Reason.BAD_TOKEN),
        ([text(2**32 - 1)], Reason.BAD_TOKEN),
        ([b"\1\0\0"], Reason.BAD_TOKEN),
        ([text(1)] * 2731, Reason.JOB_TOO_LARGE),
    ],
)
def test_a_job_that_cannot_be_encoded_is_refused(texts: Sequence[bytes], reason: Reason) -> None:
    with pytest.raises(JobRefused) as refusal:
        RULES.check(texts)
    assert refusal.value.reason is reason


def test_the_longest_text_and_the_largest_job_are_accepted() -> None:
    RULES.check([text(99, 0, 1, 2, 3, 4)])
    RULES.check([text(1)] * RULES.max_texts)


def test_an_id_in_use_and_a_full_queue_are_refused() -> None:
    scheduler = Scheduler(StepLimits())
    for number in range(WAITING_JOBS):
        check_room(scheduler, JobId(number))
        scheduler.submit(JobId(number), [text(1)], max_wait_s=1.0, now=0.0)
    with pytest.raises(JobRefused) as duplicate:
        check_room(scheduler, JobId(0))
    assert duplicate.value.reason is Reason.DUPLICATE_JOB
    with pytest.raises(JobRefused) as full:
        check_room(scheduler, JobId(WAITING_JOBS))
    assert full.value.reason is Reason.QUEUE_FULL
