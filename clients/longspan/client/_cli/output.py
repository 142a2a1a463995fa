"""Shows what happens, for people or for programs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Protocol

from rich.console import Console

from longspan.client._cache_types import CacheCleared, CacheStats, CacheVerified
from longspan.client._cli.bars import Bars
from longspan.client._cli.json_lines import JsonLines
from longspan.client._cli.options import OutputOptions
from longspan.client._cli.plain_text import PlainText
from longspan.client._types import Document, Event


class Output(AbstractContextManager["Output"], Protocol):
    """Where a command's results go."""

    def event(self, event: Event) -> None:
        """Something of an answer or an upload."""
        ...

    def document(self, document: Document) -> None:
        """A document, briefly."""
        ...

    def row(self, document: Document) -> None:
        """A document, as one of a list."""
        ...

    def details(self, document: Document) -> None:
        """A document, in full."""
        ...

    def deleted(self, document_id: str) -> None:
        """A document is gone."""
        ...

    def cache_stats(self, stats: CacheStats) -> None:
        """What is kept."""
        ...

    def cache_verified(self, verified: CacheVerified) -> None:
        """What was found on disk."""
        ...

    def cache_cleared(self, cleared: CacheCleared) -> None:
        """What was dropped."""
        ...


def open_output(shown: OutputOptions, *, reasoning: bool = False) -> Output:
    """The output that the options ask for; bars go to a terminal only.

    Args:
        reasoning: whether people see it; programs always do.
    """
    console = Console(stderr=True)
    bars = Bars(console) if sys.stderr.isatty() and not shown.quiet else None
    if shown.json:
        return JsonLines(sys.stdout, bars)
    return PlainText(sys.stdout, console, bars, brief=shown.quiet, reasoning=reasoning)
