"""Progress bars on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from longspan.client._types import Progress, Stage


class Bars:
    """Bytes sent, tokens made, passages embedded, tokens that the decoder has read.

    A bar appears when there is something to show on it.
    """

    def __init__(self, console: Console) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            console=console,
            transient=True,
        )
        self._bytes = self._add("upload", "bytes")
        self._tokens = self._add("tokenise", "tokens")
        self._passages = self._add("embed", "passages")
        self._prefill = self._add("prefill", "tokens")

    def show(self, progress: Progress) -> None:
        """Move the bars."""
        self._rich.start()
        # How many tokens or passages there will be is known when all bytes are there.
        arrived = progress.stage is not Stage.UPLOADING
        self._move(self._bytes, progress.bytes_received, progress.bytes_total)
        self._move(self._tokens, progress.tokens, progress.tokens * arrived)
        self._move(self._passages, progress.passages_embedded, progress.passages * arrived)
        # The prompt is the documents and some words around them.
        prompt = max(progress.tokens, progress.tokens_prefilled)
        self._move(self._prefill, progress.tokens_prefilled, prompt * arrived)
        self._rich.update(self._prefill, unit=_prefill_unit(progress))

    def stop(self) -> None:
        """Remove the bars."""
        self._rich.stop()

    def _add(self, name: str, unit: str) -> TaskID:
        return self._rich.add_task(name, total=None, unit=unit, visible=False)

    def _move(self, bar: TaskID, completed: int, total: int) -> None:
        self._rich.update(bar, completed=completed, total=total or None)
        if completed:
            self._rich.update(bar, visible=True)


def _prefill_unit(progress: Progress) -> str:
    unit = f"tokens, {progress.tokens_cached:,} cached" if progress.tokens_cached else "tokens"
    if not progress.queue_position:
        return unit
    return f"{unit}, {progress.queue_position} ahead in the queue"
