"""What a caller has been told of an answer that may come again; pure."""

from __future__ import annotations

from longspan.server.errors import GenerationFailed


class ToldText:
    """A text that comes in pieces, cut differently each time."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._before = ""
        self._seen = 0

    def restart(self) -> None:
        """The text comes from its beginning again."""
        self._before = "".join(self._pieces)
        self._pieces = [self._before]
        self._seen = 0

    def admit(self, piece: str) -> str:
        """The end of a piece that is new; empty when nothing is.

        Raises:
            GenerationFailed: it differs from what was told.
        """
        known = self._before[self._seen : self._seen + len(piece)]
        if not piece.startswith(known):
            raise changed()
        self._seen += len(piece)
        fresh = piece[len(known) :]
        self._pieces.append(fresh)
        return fresh

    def end(self) -> None:
        """Nothing follows.

        Raises:
            GenerationFailed: more was told.
        """
        if self._seen < len(self._before):
            raise changed()


class ToldItems:
    """Things that come whole and in order, each by what must be the same the next time."""

    def __init__(self) -> None:
        self._items: list[object] = []
        self._seen = 0

    def restart(self) -> None:
        """They come from the first again."""
        self._seen = 0

    def admit(self, item: object) -> bool:
        """Whether it is new.

        Raises:
            GenerationFailed: it differs from what was told.
        """
        self._seen += 1
        if self._seen > len(self._items):
            self._items.append(item)
            return True
        if self._items[self._seen - 1] != item:
            raise changed()
        return False

    def end(self) -> None:
        """None follows.

        Raises:
            GenerationFailed: more were told.
        """
        if self._seen < len(self._items):
            raise changed()


def changed() -> GenerationFailed:
    """The one wording of an answer that came out otherwise when it was made again."""
    return GenerationFailed("the answer changed when it was made again; ask again for a whole one")
