"""The normal form in which quotations and documents are compared.

- Quotation marks of all kinds become ``"``, apostrophes ``'``, dashes ``-``.
- Soft hyphens and characters without width are left out.
- A hyphen between two letters is left out, with the line break behind it: *exam-* / *ple*.
- White space between two ideographs is left out; any other run of it becomes one space.

Case, digits, punctuation and marks stay as they are. Normalising twice changes nothing, and
a character of the normal form comes from one character of the text.
"""

from __future__ import annotations

import re
from array import array

_DOUBLE = "“”„‟″«»「」『』＂"
_SINGLE = "‘’‚‛′`´"
_DASHES = "‐‑‒–—―−－"
_UNSEEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_LETTER = r"[^\W\d_]"
_IDEOGRAPH = r"[\u3001-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff01-\uff65]"
# Possessive: a run is walked over once, however the match ends. Looking back comes second: a
# pattern that begins with what it is about is searched for faster.
_PASSES = (
    (re.compile(f"[{_DOUBLE}]"), '"'),
    (re.compile(f"[{_SINGLE}]"), "'"),
    (re.compile(f"[{_DASHES}]"), "-"),
    (re.compile(f"[{_UNSEEN}]++"), ""),
    (re.compile(rf"-(?<={_LETTER}-)(?:[^\S\n]*+\n\s*+)?(?={_LETTER})"), ""),
    (re.compile(rf"\s(?<={_IDEOGRAPH}\s)\s*+(?={_IDEOGRAPH})"), ""),
    (re.compile(r"\s{2,}+|[^\S ]"), " "),
)
# No pass looks beyond white space, dashes and unseen characters, so a text may be cut between
# two others, between two dashes, and behind a single space where no hyphen is undone.
_APART = rf"\-{_DASHES}"
_PLAIN = rf"[^\s{_APART}{_UNSEEN}]"
SAFE_CUT = re.compile(
    rf"(?<={_PLAIN})(?={_PLAIN})|(?<=[{_APART}])(?=[{_APART}])"
    rf"|(?<=[^\s{_UNSEEN}][ \n])(?=[{_APART}])"
    rf"|(?<=[^\W_][ \n])(?=[^\W_])(?!{_IDEOGRAPH})"
)


def normal_form(text: str) -> str:
    """The normal form, in time linear in the length."""
    for pattern, replacement in _PASSES:
        text = pattern.sub(replacement, text)
    return text


def traced_normal_form(text: str) -> tuple[str, array[int]]:
    """The normal form, and for each of its characters the position it comes from."""
    normal, places = text, array("q", range(len(text)))
    for pattern, replacement in _PASSES:
        normal, places = _replaced(normal, places, pattern, replacement)
    return normal, places


def _replaced(
    text: str, places: array[int], pattern: re.Pattern[str], replacement: str
) -> tuple[str, array[int]]:
    pieces: list[str] = []
    kept = array("q")
    done = 0
    for match in pattern.finditer(text):
        start, end = match.span()
        pieces += (text[done:start], replacement)
        kept += places[done : start + len(replacement)]
        done = end
    return "".join([*pieces, text[done:]]), kept + places[done:]
