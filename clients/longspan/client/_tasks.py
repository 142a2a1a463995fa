"""What to do with documents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Literal, TypeAlias

from longspan.client._generation import Generation


class Priority(Enum):
    """Which requests go first when the server is busy."""

    BATCH = "batch"
    NORMAL = "normal"
    INTERACTIVE = "interactive"


class Method(StrEnum):
    """Who answers; the bare words are as good as the members."""

    # The encoder picks sentences of the documents.
    EXTRACTIVE = "extractive"
    # The decoder reads the whole documents and writes the answer.
    GENERATIVE = "generative"


class CacheMode(StrEnum):
    """Whether an answer that was given before may be given again; the words are as good."""

    # Where the same request must have the same answer: extractive, greedy, or with a seed.
    DEFAULT = "default"
    # The server looks up no answer and keeps none.
    OFF = "off"
    # Also where the caller names no seed: the same request gets the same answer.
    FORCE = "force"


CacheModeName: TypeAlias = CacheMode | Literal["default", "off", "force"]
MethodName: TypeAlias = Method | Literal["extractive", "generative"]


@dataclass(frozen=True, slots=True)
class Ask:
    """Answers a question from the documents.

    Attributes:
        max_citations: passages to cite at most; None leaves it to the server.
        method: None is the decoder where the server has one, else the encoder.
        generation: how a decoder answers.
        cache: whether an answer given before will do.
    """

    question: str
    max_citations: int | None = None
    priority: Priority | None = None
    method: MethodName | None = None
    generation: Generation | None = None
    cache: CacheModeName = CacheMode.DEFAULT


@dataclass(frozen=True, slots=True)
class Summarize:
    """Says what matters most.

    Attributes:
        max_sentences: None leaves it to the server.
        method: None is the decoder where the server has one, else the encoder.
        generation: how a decoder answers.
        cache: whether an answer given before will do.
    """

    max_sentences: int | None = None
    priority: Priority | None = None
    method: MethodName | None = None
    generation: Generation | None = None
    cache: CacheModeName = CacheMode.DEFAULT


@dataclass(frozen=True, slots=True)
class Prompt:
    """Gives the documents and a free instruction to a decoder model.

    Attributes:
        method: the server refuses the extractive one.
        generation: how the decoder answers.
        cache: whether an answer given before will do.
    """

    text: str
    priority: Priority | None = None
    method: MethodName | None = None
    generation: Generation | None = None
    cache: CacheModeName = CacheMode.DEFAULT


Task: TypeAlias = Ask | Summarize | Prompt
