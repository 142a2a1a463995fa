"""The words of a text as a search index counts them.

English words are stemmed (Snowball), function words are left out; ideographs and kana
count as pairs of neighbours, which needs no dictionary. Terms are hashed to 32 bits.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

import numpy as np
import snowballstemmer
from numpy.typing import NDArray

_TERM = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]+|[^\W_]+(?:[.,][0-9]+)*")
_IDEOGRAPHIC = re.compile(r"[぀-ヿ㐀-鿿豈-﫿]")
_FUNCTION_WORDS = frozenset(
    re.split(
        r"\s+",
        """a an and any are as at be been being both but by can could did do does for from had
        has have he her his how i if in into is it its just made make may me might much must my
        no not of on one or our out over own per shall she should so some such than that the
        their them then there these they this those to too under until up upon was we were what
        when where which while who whom whose why will with without would you your many""",
    )
)


def terms(text: str) -> NDArray[np.uint32]:
    """Hashes of the terms of ``text``, in order, uint32 [terms]."""
    found: list[int] = []
    for word in _TERM.findall(text.lower()):
        found += _hashes(word)
    return np.array(found, np.uint32)


def ideographic_share(text: str) -> float:
    """Part of the letters of ``text`` that are ideographs or kana, 0 to 1."""
    letters = sum(character.isalpha() for character in text)
    return len(_IDEOGRAPHIC.findall(text)) / letters if letters else 0.0


@lru_cache(maxsize=1 << 16)
def _hashes(word: str) -> tuple[int, ...]:
    if _IDEOGRAPHIC.match(word):
        pairs = [word[start : start + 2] for start in range(len(word) - 1)] or [word]
        return tuple(zlib.crc32(pair.encode()) for pair in pairs)
    if word in _FUNCTION_WORDS:
        return ()
    # A stemmer keeps the word it works on: one for all threads would mix their words up.
    stem = snowballstemmer.stemmer("english").stemWord(word)
    return (zlib.crc32(stem.encode()),)
