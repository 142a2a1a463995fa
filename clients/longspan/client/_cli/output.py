"""Shows what happens, for people or for programs."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self, TextIO

from longspan.client._cli.bars import Bars
from longspan.client._cli.json_lines import JsonLines
from longspan.client._types import (
    Citation,
    Completed,
    Document,
    Event,
    FinishReason,
    Progress,
    TextDelta,
)


class Output(AbstractContextManager["Output"], Protocol):
    """Where a command's results go."""

    def event(self, event: Event) -> None:
        """Something of an answer or an upload."""
        ...

    def document(self, document: Document) -> None:
        """A document, briefly."""
        ...

    def details(self, document: Document) -> None:
        """A document, in full."""
        ...

    def deleted(self, document_id: str) -> None:
        """A document is gone."""
        ...


def open_output(*, json: bool, quiet: bool) -> Output:
    """The output that the options ask for; bars go to a terminal only."""
    bars = Bars() if sys.stderr.isatty() and not quiet else None
    return JsonLines(sys.stdout, bars) if json else PlainText(sys.stdout, bars, brief=quiet)


class PlainText:
    """Text as it arrives, citations after it.

    Args:
        brief: documents by their ids alone.
    """

    def __init__(self, out: TextIO, bars: Bars | None, *, brief: bool) -> None:
        self._out = out
        self._bars = bars
        self._brief = brief
        self._citations: list[Citation] = []
        self._last = "\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_bars()
        if self._last != "\n":
            self._write("\n")

    def event(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Progress() if self._bars is not None:
                self._bars.show(event)
            case TextDelta(text):
                self._stop_bars()
                self._write(_printable(text))
            case Citation():
                self._citations.append(event)
            case Completed():
                self._complete(event)

    def document(self, document: Document) -> None:
        """One line."""
        self._stop_bars()
        if self._brief:
            self._write(f"{document.document_id}\n")
            return
        self._write(
            f"{document.document_id}  {document.size_bytes:>10,} bytes  "
            f"{document.tokens:>9,} tokens  {_printable(document.title)}\n"
        )

    def details(self, document: Document) -> None:
        """One line for each attribute."""
        for name in Document.__slots__:
            self._write(f"{name + ':':<13}{_printable(str(getattr(document, name)))}\n")

    def deleted(self, document_id: str) -> None:
        """The id, unless nothing is to be said."""
        if not self._brief:
            self._write(f"deleted {document_id}\n")

    def _complete(self, completed: Completed) -> None:
        self._stop_bars()
        if completed.finish_reason is FinishReason.NO_ANSWER:
            print("longspan: the documents hold nothing to answer with", file=sys.stderr)
        if self._citations and self._last != "\n":
            self._write("\n")
        for one in self._citations:
            quote = " ".join(_printable(one.quote).split())
            self._write(f'[{one.index}] bytes {one.span.start}–{one.span.end}  "{quote}"\n')

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._last = text[-1:] or self._last

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _printable(text: str) -> str:
    # A document must not steer the terminal of the one who reads it.
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
