"""Why a caller is not let in: for counters and the log, and told to nobody."""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """A reason; the values are names of a metric's label."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    WRONG_KEY = "wrong_key"
    BAD_TOKEN = "bad_token"
    EXPIRED_TOKEN = "expired_token"
    FOREIGN_TOKEN = "foreign_token"
    NO_TENANT = "no_tenant"
