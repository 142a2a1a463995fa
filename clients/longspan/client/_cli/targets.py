"""What a command names: files, standard input, or documents by id."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import typer

from longspan.client._readers import kind_of
from longspan.client._types import DocumentId


@dataclass(frozen=True, slots=True)
class File:
    """Something to upload."""

    source: Path | BinaryIO


Target: TypeAlias = File | DocumentId


def parse_targets(arguments: list[str]) -> list[Target]:
    """Files and ids, in order.

    Raises:
        BadParameter: something looks like a file, and there is none.
        UnsupportedFile: a file is of a kind that is not read.
    """
    return [_parse(argument) for argument in arguments]


def parse_files(arguments: list[str]) -> list[File]:
    """Files alone.

    Raises:
        BadParameter: something is not a file.
        UnsupportedFile: a file is of a kind that is not read.
    """
    targets = parse_targets(arguments)
    for argument, target in zip(arguments, targets, strict=True):
        if not isinstance(target, File):
            raise typer.BadParameter(f"no such file: {argument}")
    return [target for target in targets if isinstance(target, File)]


def _parse(argument: str) -> Target:
    if argument == "-":
        # Unbuffered: a thread that waits in a buffered read holds a lock that Python wants at
        # its exit, and without it aborts.
        return File(open(sys.stdin.fileno(), "rb", buffering=0, closefd=False))
    path = Path(argument)
    if path.is_file():
        kind_of(path)
        return File(path)
    if path.suffix or len(path.parts) != 1 or path.exists():
        raise typer.BadParameter(f"no such file: {argument}")
    return DocumentId(argument)
