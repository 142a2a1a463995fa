"""An answer for people: text as it arrives, quotations after it."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.text import Text

from longspan.client._cache_types import CacheCleared, CacheStats, CacheVerified
from longspan.client._cli.bars import Bars
from longspan.client._cli.kept import (
    DOCUMENTS_HEAD,
    cleared_line,
    document_row,
    kept_text,
    stats_lines,
    verified_line,
)
from longspan.client._types import (
    AttentionUsage,
    CacheLevel,
    Citation,
    Completed,
    Document,
    Event,
    FinishReason,
    Progress,
    Reasoning,
    Rebuilt,
    TextDelta,
    UnverifiedQuote,
)

MIB = 1 << 20

_REMARKS = {
    FinishReason.NO_ANSWER: "the documents hold nothing to answer with",
    FinishReason.LENGTH: "the answer was cut off: it reached --max-tokens or the model's context",
}


class PlainText:
    """The answer on ``out``; reasoning, remarks and figures on ``console``.

    Args:
        console: on standard error.
        brief: documents by their ids alone, and no figures.
        reasoning: whether it is shown.
    """

    def __init__(
        self, out: TextIO, console: Console, bars: Bars | None, *, brief: bool, reasoning: bool
    ) -> None:
        self._out = out
        self._console = console
        self._bars = bars
        self._brief = brief
        self._reasoning = reasoning
        self._thinking = False
        self._headed = False
        self._quotes: list[Citation | UnverifiedQuote] = []
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
        self._stop_thinking()
        if self._last != "\n":
            self._write("\n")

    def event(self, event: Event) -> None:
        """Show an event."""
        match event:
            case Progress() if self._bars is not None:
                self._bars.show(event)
            case Rebuilt() if not self._brief:
                self._stop_bars()
                self._remark(_rebuilt(event))
            case Reasoning(text) if self._reasoning:
                self._think(_printable(text))
            case TextDelta(text):
                self._say(_printable(text))
            case Citation() | UnverifiedQuote():
                self._quotes.append(event)
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

    def row(self, document: Document) -> None:
        """One line of a table."""
        if self._brief:
            self.document(document)
            return
        if not self._headed:
            self._write(f"{DOCUMENTS_HEAD}\n")
            self._headed = True
        self._write(f"{_printable(document_row(document))}\n")

    def cache_stats(self, stats: CacheStats) -> None:
        """One table."""
        for line in stats_lines(stats):
            self._write(f"{_printable(line)}\n")

    def cache_verified(self, verified: CacheVerified) -> None:
        """One line."""
        self._write(f"{verified_line(verified)}\n")

    def cache_cleared(self, cleared: CacheCleared) -> None:
        """One line."""
        self._write(f"{cleared_line(cleared)}\n")

    def details(self, document: Document) -> None:
        """One line for each attribute."""
        for name in Document.__slots__:
            value = getattr(document, name)
            text = kept_text(document.kv) if name == "kv" else str(value)
            self._write(f"{name + ':':<13}{_printable(text)}\n")

    def deleted(self, document_id: str) -> None:
        """The id, unless nothing is to be said."""
        if not self._brief:
            self._write(f"deleted {document_id}\n")

    def _think(self, text: str) -> None:
        self._drop_bars()
        self._thinking = True
        self._console.print(Text(text, style="dim"), end="", soft_wrap=True)

    def _say(self, text: str) -> None:
        self._drop_bars()
        self._stop_thinking()
        self._write(text)

    def _complete(self, completed: Completed) -> None:
        self._stop_bars()
        self._stop_thinking()
        if self._quotes and self._last != "\n":
            self._write("\n")
        for quote in self._quotes:
            self._write(_line(quote))
        if completed.finish_reason in _REMARKS:
            self._remark(f"longspan: {_REMARKS[completed.finish_reason]}")
        if completed.usage.output_tokens and not self._brief:
            self._remark(_figures(completed))
        if completed.cache is not None and completed.cache.level is not None and not self._brief:
            self._remark(_found(completed.cache.level, completed.cache.age_s))

    def _remark(self, text: str) -> None:
        if self._last != "\n":
            self._write("\n")
        self._console.print(Text(text), soft_wrap=True)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
        self._last = text[-1:] or self._last

    def _drop_bars(self) -> None:
        # For good: reports of progress go on while the answer is written.
        self._stop_bars()
        self._bars = None

    def _stop_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _stop_thinking(self) -> None:
        if self._thinking:
            self._console.print("\n")
            self._thinking = False


def _line(quote: Citation | UnverifiedQuote) -> str:
    words = " ".join(_printable(quote.quote).split())
    match quote:
        case Citation(index=index, span=span):
            return f'[{index}] bytes {span.start}–{span.end}  "{words}"\n'
        case UnverifiedQuote():
            return f'[?] in no document  "{words}"\n'


def _rebuilt(rebuilt: Rebuilt) -> str:
    return (
        f"longspan: {rebuilt.tokens:,} tokens of {_printable(rebuilt.document_id)} were read "
        "again: their KV pages were gone"
    )


def _figures(completed: Completed) -> str:
    usage, timings = completed.usage, completed.timings
    return (
        f"{usage.document_tokens + usage.task_tokens:,} tokens read, "
        f"{usage.cached_tokens:,} of them cached; {usage.output_tokens:,} written; "
        f"first text {timings.first_delta_s:.2f} s after the last byte, "
        f"then {timings.per_token_s * 1000:.1f} ms a token"
        f"{_read(completed.attention)}"
    )


def _found(level: CacheLevel, age_s: float) -> str:
    return f"an answer given before ({level.value}), {age_s:.0f} s old; --no-cache makes a new one"


def _read(attention: AttentionUsage | None) -> str:
    if attention is None:
        return ""
    return (
        f"; {_printable(attention.policy)} attention saw {attention.seen_share:.1%} of the keys "
        f"and held {attention.kv_bytes / MIB:,.1f} MiB"
    )


def _printable(text: str) -> str:
    # A document must not steer the terminal of the one who reads it.
    return "".join(c for c in text if c in "\n\t" or c.isprintable())
