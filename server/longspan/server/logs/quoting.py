"""Keeps out of the log what libraries would quote of callers."""

from __future__ import annotations

import logging

GRPC = "grpc._cython.cygrpc"
INVALID_ENCODING = "Invalid encoding on"


class QuotingFilter(logging.Filter):
    """Drops gRPC's lines on metadata that is no text: they hold it, credentials included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """False for such a line."""
        return not (record.name == GRPC and str(record.msg).startswith(INVALID_ENCODING))
