"""What a sequence has generated: its tokens for a replay, its text for the caller."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum

from longspan.server.errors import LongspanError

TOKEN_BYTES = 4
# Far more than any context has; a caller that lets so much wait does not read.
WAITING_CHARS = 1 << 20


class FinishReason(Enum):
    """Why a sequence ended well."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionUsage:
    """What an attention policy did with one sequence.

    Attributes:
        kv_bytes: KV memory that it held at its end, pages shared with others included.
        seen_share: keys that its queries saw, as a share of those that full attention sees.
    """

    policy: str
    kv_bytes: int
    seen_share: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The good end of a sequence.

    Attributes:
        cached_tokens: of the prompt, found in the worker's pages.
        attention: None where the worker told nothing.
    """

    reason: FinishReason
    cached_tokens: int
    attention: AttentionUsage | None = None


class Output:
    """Filled by the dispatcher, read by one caller; ends once.

    Attributes:
        first_s, last_s: when the first and the newest token came, on the loop's clock.
    """

    def __init__(self) -> None:
        self._ids = bytearray()
        self._texts: list[str] = []
        self._chars = 0
        self._end: Finish | LongspanError | None = None
        self._changed = asyncio.Event()
        self.first_s: float | None = None
        self.last_s: float | None = None

    @property
    def tokens(self) -> int:
        """Tokens that came."""
        return len(self._ids) // TOKEN_BYTES

    @property
    def ids(self) -> bytes:
        """Their ids, little-endian uint32."""
        return bytes(self._ids)

    @property
    def ended(self) -> bool:
        """True when nothing more will come."""
        return self._end is not None

    @property
    def finish(self) -> Finish:
        """The good end, after ``read`` has returned None."""
        assert isinstance(self._end, Finish)
        return self._end

    @property
    def crowded(self) -> bool:
        """True when more text waits than any caller that reads lets wait."""
        return self._chars > WAITING_CHARS

    def add(self, first: int, ids: bytes, text: str, now: float) -> bool:
        """Take what a step made; False, and nothing taken, unless it follows what is here."""
        if first != self.tokens or self.ended:
            return False
        self._ids += ids
        if ids:
            self.first_s = self.first_s or now
            self.last_s = now
        if text:
            self._texts.append(text)
            self._chars += len(text)
            self._changed.set()
        return True

    def end(self, end: Finish | LongspanError) -> None:
        """Nothing more will come; the first end counts."""
        if self._end is None:
            self._end = end
            self._changed.set()

    def check(self) -> None:
        """Raise the error that it ended with, if it did."""
        if isinstance(self._end, LongspanError):
            raise self._end

    async def failed(self) -> None:
        """Wait for the end; raise the error that it is, if it is one."""
        while self._end is None:
            self._changed.clear()
            await self._changed.wait()
        self.check()

    async def read(self) -> str | None:
        """All text that waits, as soon as there is some; None at the end.

        Raises:
            LongspanError: the bad end, after the text before it.
        """
        while not self._texts and self._end is None:
            self._changed.clear()
            await self._changed.wait()
        if not self._texts:
            self.check()
            return None
        text = "".join(self._texts)
        self._texts, self._chars = [], 0
        return text
