"""What the doctor finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """How a thing stands."""

    OK = "ok"
    # Not here, and not needed by everybody.
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        detail: for people.
        facts: the same for programs, where there are figures.
    """

    name: str
    verdict: Verdict
    detail: str
    facts: Mapping[str, Any] = field(default_factory=dict)
