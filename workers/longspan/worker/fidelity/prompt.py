"""Prompts around a document, as the model's own chat template has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from longspan.worker.failures import StartFailure
from longspan.worker.fidelity.needle import Needle
from longspan.worker.model_files import read_json
from longspan.worker.models.vocabulary import open_tokenizer

Tokens = npt.NDArray[np.uint32]
SENTINEL = "longspan0message7sentinel"
"""Stands for the message while the template is rendered: no template sees a document."""

OPENING = "Read the text first. What to do with it is said after it.\n\n<document>\n"
CLOSING = "\n</document>\n\n"


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Tokens around a document, and those of the right answer.

    Attributes:
        head: before the document.
        task: behind it; the answer follows.
        answer: the right answer.
        number: places of the hidden number in it.
    """

    head: Tokens
    task: Tokens
    answer: Tokens
    number: range


class Prompter:
    """Writes prompts for the decoder in ``folder``.

    Raises:
        StartFailure: its tokenizer or its chat template cannot be used.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        self.tokenizer: Any = open_tokenizer(folder, vocabulary)
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._around = _around_message(folder)
        self._beginning = _beginning(self.tokenizer)

    @property
    def chats(self) -> bool:
        """True where the model has a chat template."""
        return self._around is not None

    def encode(self, text: str) -> Tokens:
        """Tokens of a text, nothing put before or behind it."""
        return np.array(self.tokenizer.encode(text, add_special_tokens=False).ids, np.uint32)

    def counts(self, texts: list[str]) -> list[int]:
        """How many tokens each text has by itself."""
        found = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        return [len(encoding.ids) for encoding in found]

    def decode(self, tokens: list[int]) -> str:
        """The text of an answer."""
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def prompt(self, needle: Needle) -> Prompt:
        """The prompt that asks for a number."""
        if self._around is None:
            head, task, lead = "", f"\n\nQuestion: {needle.question}\nAnswer:", f" {needle.lead}"
        else:
            before, after = self._around
            head = before + OPENING
            task = f"{CLOSING}{needle.question} Answer in one short sentence.{after}"
            lead = needle.lead
        tokens = self.encode(head)
        if tokens[: len(self._beginning)].tolist() != self._beginning:
            tokens = np.concatenate((np.array(self._beginning, np.uint32), tokens))
        answer = self.tokenizer.encode(lead + needle.number, add_special_tokens=False)
        return Prompt(
            tokens, self.encode(task), np.array(answer.ids, np.uint32), _behind(answer, len(lead))
        )


def _behind(encoding: Any, characters: int) -> range:
    """The tokens that spell what stands behind so many characters."""
    first = next(i for i, (_, end) in enumerate(encoding.offsets) if end > characters)
    return range(first, len(encoding.ids))


def _beginning(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text."""
    found = tokenizer.encode("a", add_special_tokens=True)
    return list(found.ids[: found.special_tokens_mask.index(0)])


def _around_message(folder: Path) -> tuple[str, str] | None:
    """What the chat template puts before and after a user's message; None without a template."""
    settings = folder / "tokenizer_config.json"
    named = settings.is_file() and read_json(settings).get("chat_template")
    if not named and not (folder / "chat_template.jinja").is_file():
        return None
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": SENTINEL}], tokenize=False, add_generation_prompt=True
        )
    except (OSError, ValueError, TypeError, LookupError, AttributeError, TemplateError) as error:
        reason = str(error).partition("\n")[0]
        raise StartFailure(f"{folder}: the chat template cannot be used: {reason}") from error
    pieces = str(text).split(SENTINEL)
    if len(pieces) != 2:
        raise StartFailure(
            f"{folder}: the chat template shows a message {len(pieces) - 1} times, not once"
        )
    return pieces[0], pieces[1]
