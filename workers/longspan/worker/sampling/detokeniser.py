"""Token ids to text while they arrive: whole characters only, each token read once."""

from __future__ import annotations

import codecs

from longspan.worker.sampling.pieces import Pieces

ESCAPED = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}
"""Bytes that form no character, as Python escapes them."""


class Detokeniser:
    """The text of one sequence; equals ``decode(tokens, skip_special_tokens=True)``.

    A byte-level vocabulary replaces broken characters as the full decoder does. With byte
    fallback, each byte that forms no character becomes one U+FFFD; the full decoder would
    replace the whole run of byte tokens around it, its good characters too, which nobody can
    know who shows them at once. A text of a sentencepiece model loses its first space.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._first = True
        self._spaces = pieces.leading_spaces
        errors = "replace" if pieces.byte_level else "surrogateescape"
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token: int) -> str:
        """The characters that the token completes."""
        piece = self._pieces.piece(token, first=self._first)
        if piece is None:
            return ""
        self._first = False
        if isinstance(piece, bytes):
            return self._strip(self._decode(piece, final=False))
        return self._strip(self._decode(b"", final=True) + piece)

    def is_blank(self, token: int) -> bool:
        """Whether the token adds white space and nothing else."""
        piece = self._pieces.piece(token) or ""
        text = piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece
        return text.isspace()

    def finish(self) -> str:
        """What is left at the end: a character that was never completed."""
        return self._strip(self._decode(b"", final=True))

    def _decode(self, data: bytes, *, final: bool) -> str:
        text = self._decoder.decode(data, final)
        return text if self._pieces.byte_level else text.translate(ESCAPED)

    def _strip(self, text: str) -> str:
        while self._spaces and text:
            if text[0] != " ":
                self._spaces = 0
                break
            self._spaces -= 1
            text = text[1:]
        return text
