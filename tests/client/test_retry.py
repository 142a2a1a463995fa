"""When a failed attempt is followed by another."""

from __future__ import annotations

import pytest

from longspan.client import (
    ConnectionLost,
    DocumentMissing,
    Draining,
    LongspanError,
    QueueFull,
    RetryPolicy,
    ServerUnavailable,
    UploadBusy,
)
from longspan.client._retry import Patience

POLICY = RetryPolicy(attempts=4, budget_s=10, backoff_s=1, max_backoff_s=3)


@pytest.mark.parametrize("error", [QueueFull("full"), Draining("stop"), UploadBusy("busy")])
def test_passing_errors_are_retried_with_a_growing_pause_up_to_the_attempts(
    error: LongspanError,
) -> None:
    patience = Patience(POLICY)
    assert [patience.delay_s(error, 0, jitter=1) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(type(error)):
        patience.delay_s(error, 0, jitter=1)


def test_jitter_shortens_the_pause_by_half_at_most() -> None:
    assert Patience(POLICY).delay_s(ConnectionLost("cut"), 0, jitter=0) == 0.5


def test_the_servers_wish_is_honoured_within_the_budget() -> None:
    patience = Patience(POLICY)
    assert patience.delay_s(QueueFull("full", retry_after_s=7), 0, jitter=0) == 7
    with pytest.raises(QueueFull):
        patience.delay_s(QueueFull("full", retry_after_s=7), 7, jitter=0)


def test_progress_starts_the_count_again() -> None:
    patience = Patience(POLICY)
    for now_s in range(0, 100, 5):
        patience.delay_s(ConnectionLost("cut"), now_s, jitter=0)
        patience.progressed()


def test_errors_that_last_are_raised_at_once() -> None:
    with pytest.raises(DocumentMissing):
        Patience(POLICY).delay_s(DocumentMissing("none"), 0, jitter=0)


def test_a_server_never_reached_is_not_tried_again_and_a_lost_one_is() -> None:
    patience = Patience(POLICY)
    with pytest.raises(ServerUnavailable):
        patience.delay_s(ServerUnavailable("none"), 0, jitter=0)
    patience.progressed()
    assert patience.delay_s(ServerUnavailable("gone"), 0, jitter=1) == 1
