"""Stores, lists, reads and removes documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import BinaryIO

import typer

from longspan.client._cli.output import Output
from longspan.client._cli.targets import File
from longspan.client._sync_client import Client
from longspan.client._types import Span


def upload(client: Client, files: Sequence[File], title: str | None, output: Output) -> None:
    """Store files."""
    for file in files:
        output.document(client.upload(file.source, title=title, on_progress=output.event))


def show_all(client: Client, output: Output) -> None:
    """Every document, newest first."""
    for document in client.list():
        output.row(document)


def show(client: Client, ids: list[str], output: Output) -> None:
    """Some documents, in detail."""
    for document_id in ids:
        output.details(client.get(document_id))


def remove(client: Client, ids: list[str], output: Output) -> None:
    """Delete documents."""
    for document_id in ids:
        client.delete(document_id)
        output.deleted(document_id)


def read(client: Client, ids: list[str], span: Span | None, out: BinaryIO) -> None:
    """Copy bytes of documents as they are."""
    for document_id in ids:
        out.write(client.read(document_id, span))
    out.flush()


def parse_span(text: str | None) -> Span | None:
    """``a:b`` as bytes ``[a, b)``.

    Raises:
        BadParameter: it is something else.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or int(match[1]) > int(match[2]):
        raise typer.BadParameter(f"{text!r} is not a span A:B with A <= B")
    return Span(int(match[1]), int(match[2]))
