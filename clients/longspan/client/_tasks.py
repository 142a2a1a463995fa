"""What to do with documents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Priority(Enum):
    """Which requests go first when the server is busy."""

    BATCH = "batch"
    NORMAL = "normal"
    INTERACTIVE = "interactive"


@dataclass(frozen=True, slots=True)
class Ask:
    """Answers a question from the documents.

    Attributes:
        max_citations: passages to cite at most; None leaves it to the server.
    """

    question: str
    max_citations: int | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class Summarize:
    """Picks the sentences that matter most.

    Attributes:
        max_sentences: None leaves it to the server.
    """

    max_sentences: int | None = None
    priority: Priority | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """Gives the documents and a free instruction to a decoder model."""

    text: str
    priority: Priority | None = None


Task: TypeAlias = Ask | Summarize | Prompt
