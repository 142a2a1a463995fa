"""Runs one task and shows its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from longspan.client._cli.output import Output
from longspan.client._cli.targets import File, Target
from longspan.client._generation import Generation
from longspan.client._sync_client import Client
from longspan.client._sync_stream import AnswerStream
from longspan.client._tasks import Ask, CacheModeName, MethodName, Prompt, Summarize, Task


class _Shared(TypedDict):
    """What all tasks have."""

    method: MethodName | None
    generation: Generation | None
    cache: CacheModeName


def answer(client: Client, targets: Sequence[Target], task: Task, output: Output) -> None:
    """One file is uploaded and asked in one call; several are stored first.

    Raises:
        LongspanError: the server refused, or cannot be reached.
    """
    with _stream(client, targets, task, output) as stream:
        for event in stream:
            output.event(event)


def _stream(client: Client, targets: Sequence[Target], task: Task, output: Output) -> AnswerStream:
    if len(targets) == 1 and isinstance(targets[0], File):
        return client.analyze(targets[0].source, task)
    ids = []
    for target in targets:
        if isinstance(target, File):
            ids.append(client.upload(target.source, on_progress=output.event).document_id)
        else:
            ids.append(target)
    shared = _Shared(method=task.method, generation=task.generation, cache=task.cache)
    match task:
        case Ask(question, citations):
            return client.ask(ids, question, max_citations=citations, **shared)
        case Summarize(sentences):
            return client.summarize(ids, max_sentences=sentences, **shared)
        case Prompt(text):
            return client.prompt(ids, text, **shared)
