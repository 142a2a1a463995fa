"""How long to wait, how often to try, and how to hold the connection."""

from __future__ import annotations

from dataclasses import dataclass

# A dead peer is noticed within 50 s even while it has nothing to say. The server must
# allow it: grpc.http2.min_ping_interval_without_data_ms below these 30 s.
CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Retries are decided here, where it is known what was delivered.
    ("grpc.enable_retries", 0),
)
# A proxy's localhost is another machine.
LOCAL_OPTIONS = (*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0))


def _check_positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Seconds to wait, None for ever.

    Attributes:
        connect: for a connection.
        idle: for the next event of a stream, or the answer of a short call. The server
            reports at least every eleven seconds, so silence means that something is broken.
        total: for a whole call, repeated attempts included.

    Raises:
        ValueError: a value is not positive.
    """

    connect: float = 5.0
    idle: float | None = 60.0
    total: float | None = 3600.0

    def __post_init__(self) -> None:
        _check_positive(self, "connect", "idle", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again.

    Only calls that cannot do harm twice are repeated: every upload resumes, every answer
    is compared with the part already delivered.

    Attributes:
        attempts: tries in a row that get nowhere; progress starts the count again.
        budget_s: seconds from the first of these failures to the start of the last try.
        backoff_s, max_backoff_s: the pause doubles from one to the other, unless the server
            asks for another one.

    Raises:
        ValueError: a value is not positive.
    """

    attempts: int = 6
    budget_s: float = 120.0
    backoff_s: float = 0.2
    max_backoff_s: float = 5.0

    def __post_init__(self) -> None:
        _check_positive(self, "attempts", "budget_s", "backoff_s", "max_backoff_s")
