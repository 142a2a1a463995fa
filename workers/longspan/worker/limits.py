"""Bounds of one worker; the same numbers hold on both ends of the stream."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20

VECTORS_BYTES = 4 * MIB
"""Largest result of one job."""

MESSAGE_BYTES = 8 * MIB
"""Largest message in either direction; a larger one ends the stream."""

WAITING_JOBS = 4096
"""Jobs that a stream may have open."""

WAITING_TOKENS = 16_000_000
"""Tokens that a stream may have waiting."""

HEARTBEAT_S = 0.25
"""Time between heartbeats; half of what the protocol's readers may rely on."""


RESOURCES_S = 1.0
"""Time between two looks at what the process takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """Largest engine step.

    Raises:
        ValueError: a limit is not positive.
    """

    budget_tokens: int = 16_384
    texts: int = 32

    def __post_init__(self) -> None:
        if self.budget_tokens < 1 or self.texts < 1:
            raise ValueError("a step takes at least one token and one text")
