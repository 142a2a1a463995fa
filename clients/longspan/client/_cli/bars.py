"""Progress bars on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress

from longspan.client._types import Progress, Stage


class Bars:
    """Bytes sent, tokens made, passages embedded."""

    def __init__(self) -> None:
        self._rich = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._bytes = self._add("upload", "bytes")
        self._tokens = self._add("tokenise", "tokens")
        self._passages = self._add("embed", "passages")

    def show(self, progress: Progress) -> None:
        """Move the bars."""
        self._rich.start()
        # How many tokens or passages there will be is known when all bytes are there.
        arrived = progress.stage is not Stage.UPLOADING
        self._rich.update(
            self._bytes, completed=progress.bytes_received, total=progress.bytes_total or None
        )
        self._rich.update(
            self._tokens,
            completed=progress.tokens,
            total=progress.tokens if arrived and progress.tokens else None,
        )
        self._rich.update(
            self._passages,
            completed=progress.passages_embedded,
            total=progress.passages if arrived and progress.passages else None,
        )

    def stop(self) -> None:
        """Remove the bars."""
        self._rich.stop()

    def _add(self, name: str, unit: str) -> TaskID:
        return self._rich.add_task(name, total=None, unit=unit)
