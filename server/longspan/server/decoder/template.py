"""A model's chat template, split around the documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from longspan.server.decoder import reasoning
from longspan.server.decoder.instructions import chat_instructions, plain_instructions
from longspan.server.decoder.jinja import FAULTS, ChatTemplate
from longspan.server.errors import ConfigError
from longspan.server.tasks.task import Task

# Stands for the whole message while the template is rendered: no template sees a document or
# a question, and none can tell questions apart. Nothing a template does to text changes it.
SENTINEL = "longspan0message7sentinel"
# The harmony format (gpt-oss) names channels with special tokens. These are not part of the
# generated text, which leaves the names.
HARMONY_BEGINS = "<|start|>assistant"
HARMONY_THINKS = "<|channel|>analysis<|message|>"
HARMONY_ENDS = "assistantfinal"
HARMONY_ANSWERS = "<|channel|>final<|message|>"


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt but for its documents.

    Attributes:
        head: the template before the message; its control tokens mean something.
        opening: our text up to the first document.
        separator: our text between two documents.
        closing: our text and the caller's after the last document: no control tokens.
        tail: the template after the message, up to where the answer begins.
        thinks: the tail ends inside an open block of reasoning.
        reasoning_end: what closes the reasoning, in the generated text.
        answer_begins: the same as the model's tokens spell it, control tokens included.
    """

    head: str
    opening: str
    separator: str
    closing: str
    tail: str
    thinks: bool
    reasoning_end: str = reasoning.END
    answer_begins: str = reasoning.END

    @property
    def prefix(self) -> str:
        """Everything before the first document; the same for every task."""
        return self.head + self.opening

    @property
    def suffix(self) -> str:
        """Everything after the last document."""
        return self.closing + self.tail


class PromptTemplate:
    """How prompts of one model are written.

    Args:
        chat: the model's template; None for a model that goes on with plain text.
    """

    def __init__(self, chat: ChatTemplate | None) -> None:
        self._chat = chat

    def parts(self, task: Task, now: datetime) -> PromptParts:
        """The prompt of a task; ``now`` is for templates that tell the date.

        Raises:
            ConfigError: the template does not take a single message of a user.
        """
        if self._chat is None:
            plain = plain_instructions(task)
            return PromptParts("", plain.opening, plain.separator, plain.closing, "", False)
        words = chat_instructions(task)
        head, tail = _around_message(self._chat, now)
        around = (head, words.opening, words.separator, words.closing)
        if tail.endswith(HARMONY_BEGINS):
            tail += HARMONY_THINKS
            return PromptParts(*around, tail, True, HARMONY_ENDS, HARMONY_ANSWERS)
        thinks = tail.rfind(reasoning.START) > tail.rfind(reasoning.END)
        return PromptParts(*around, tail, thinks)


def load_template(folder: Path) -> PromptTemplate:
    """The template of the model in ``folder``.

    ``chat_template.jinja`` goes before ``tokenizer_config.json``, which may hold one template
    or several named ones, of which ``default`` is taken. Blocking.

    Raises:
        ConfigError: a file is malformed, or the template does not compile or does not take a
            single message of a user.
    """
    config = _read_object(folder / "tokenizer_config.json")
    source = _source(folder, config)
    if source is None:
        return PromptTemplate(None)
    tokens = _special_tokens(_read_object(folder / "special_tokens_map.json") | config)
    try:
        chat = ChatTemplate(source, tokens)
    except FAULTS as error:
        raise ConfigError(f"{folder.name}: the chat template does not compile: {error}") from error
    _around_message(chat, datetime(2000, 1, 1))
    return PromptTemplate(chat)


def _around_message(chat: ChatTemplate, now: datetime) -> tuple[str, str]:
    """What the template puts before and after a user's message."""
    reasons = []
    # Templates of models that also see images may take lists of parts only.
    for content in (SENTINEL, [{"type": "text", "text": SENTINEL}]):
        try:
            pieces = chat.render(content, now).split(SENTINEL)
        except FAULTS as error:
            reasons.append(str(error))
            continue
        if len(pieces) == 2:
            return pieces[0], pieces[1]
        reasons.append(f"it shows the message {len(pieces) - 1} times")
    raise ConfigError(f"the model's chat template cannot be used: {reasons[0]}")


def _source(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return _read(file)
    match config.get("chat_template"):
        case None:
            return None
        case str(source):
            return source
        case [*named]:
            found = {one["name"]: one["template"] for one in named if _is_named(one)}
            if "default" in found:
                return str(found["default"])
    raise ConfigError(f"{folder.name}: tokenizer_config.json has no default chat template")


def _is_named(value: object) -> bool:
    return isinstance(value, dict) and {"name", "template"} <= value.keys()


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the special tokens that have a role; a token is a string or an object."""
    tokens = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one where there is no file."""
    if not path.exists():
        return {}
    try:
        value = json.loads(_read(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
