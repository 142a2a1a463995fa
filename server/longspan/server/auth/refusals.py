"""Counts refused callers by reason, and writes some of them down."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from longspan.server.auth.refusal import Refusal
from longspan.server.rates.token_bucket import TokenBucket

log = logging.getLogger(__name__)

# Whoever knocks decides how often; not how much is written about it.
LOGGED_PER_S = 1.0
LOGGED_AT_ONCE = 20


class Refusals:
    """Refused callers since the start; the caller brings the clock."""

    def __init__(self, now_s: float) -> None:
        self._counts = dict.fromkeys(Refusal, 0)
        self._lines = TokenBucket(LOGGED_PER_S, LOGGED_AT_ONCE, now_s)
        self._untold = 0

    @property
    def counts(self) -> Mapping[Refusal, int]:
        """A number for each reason; they only grow."""
        return dict(self._counts)

    def note(self, refusal: Refusal, peer: str, now_s: float) -> None:
        """Count one, and log it unless there are too many.

        Args:
            peer: the caller's address; what it sent is not written down.
        """
        self._counts[refusal] += 1
        if self._lines.take(1, now_s) > 0:
            self._untold += 1
            return
        untold = f" ({self._untold} more were not logged)" if self._untold else ""
        self._untold = 0
        log.warning("refused %s: %s%s", peer, refusal.value, untold)
