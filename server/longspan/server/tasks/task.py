"""The tasks, as values; checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.errors import InvalidRequest
from longspan.server.limits import Limits

DEFAULT_CITATIONS = 3
DEFAULT_SENTENCES = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """Answer ``question`` with at most ``max_citations`` quotations."""

    question: str
    max_citations: int = DEFAULT_CITATIONS


@dataclass(frozen=True, slots=True)
class Summarize:
    """Pick at most ``max_sentences`` sentences."""

    max_sentences: int = DEFAULT_SENTENCES


@dataclass(frozen=True, slots=True)
class Prompt:
    """Follow a free instruction; needs a decoder."""

    text: str


Task = Ask | Summarize | Prompt


def check_task(task: Task, limits: Limits) -> None:
    """Refuse a task that cannot be run, before a byte of the document is taken.

    Raises:
        InvalidRequest: an empty or oversized field.
    """
    match task:
        case Ask(question, max_citations):
            _check_text(question, "task.ask.question", limits)
            _check_count(max_citations, limits.citations, "task.ask.max_citations")
        case Summarize(max_sentences):
            _check_count(max_sentences, limits.summary_sentences, "task.summarize.max_sentences")
        case Prompt(text):
            _check_text(text, "task.prompt.text", limits)


def _check_text(text: str, field: str, limits: Limits) -> None:
    if not text.strip():
        raise InvalidRequest("must not be empty", field=field)
    size_bytes = len(text.encode())
    if size_bytes > limits.question_bytes:
        raise InvalidRequest(f"{size_bytes} bytes; at most {limits.question_bytes}", field=field)


def _check_count(count: int, limit: int, field: str) -> None:
    if not 1 <= count <= limit:
        raise InvalidRequest(f"must be between 1 and {limit}, not {count}", field=field)
