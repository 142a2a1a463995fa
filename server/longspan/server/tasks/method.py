"""Who answers a task: the encoder, which picks sentences, or the decoder, which writes."""

from __future__ import annotations

from enum import Enum

from longspan.server.errors import DecoderRequired, InvalidRequest
from longspan.server.tasks.task import Prompt, Task


class Method(Enum):
    """How an answer is made."""

    EXTRACTIVE = "extractive"
    GENERATIVE = "generative"


def choose_method(task: Task, wanted: Method | None, *, decoder: bool) -> Method:
    """The method of a task on this server; None leaves the choice to it.

    Raises:
        DecoderRequired: only a decoder can do it, and there is none.
        InvalidRequest: the encoder is asked for what only a decoder can do.
    """
    if isinstance(task, Prompt) and wanted is Method.EXTRACTIVE:
        raise InvalidRequest(
            "a prompt is followed by a generating model only; leave the method out",
            field="task.method",
        )
    generative = wanted is Method.GENERATIVE or isinstance(task, Prompt)
    if generative and not decoder:
        what = "prompt" if isinstance(task, Prompt) else "the generative method"
        raise DecoderRequired(
            f"{what} needs a generating model and this server runs an encoder only; "
            "ask and summarize work without. Start a server with a decoder: "
            "longspan serve --model FOLDER_OR_HUB_ID"
        )
    if wanted is None:
        return Method.GENERATIVE if decoder else Method.EXTRACTIVE
    return wanted
