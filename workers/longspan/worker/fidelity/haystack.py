"""Long text in pieces of one sentence each: made up here, or the user's own. Pure."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import count

WHO = (
    "The committee", "A carrier", "The night nurse", "An engineer", "The second witness",
    "The harbour office", "A retired teacher", "The buyer", "The laboratory", "One of the pilots",
)  # fmt: skip
DID = (
    "inspected", "described", "returned", "misplaced", "approved", "compared", "paid for",
    "repaired", "catalogued", "questioned",
)  # fmt: skip
WHAT = (
    "the blue ledger", "a crate of lamps", "the draft contract", "three old maps",
    "the pressure valve", "a set of samples", "the ferry timetable", "the east staircase",
    "a letter from the bank", "the spare batteries",
)  # fmt: skip
WHEN = (
    "before noon", "during the storm", "on the last Friday of the month", "without being asked",
    "after a long discussion", "in front of two colleagues", "as the rules require",
    "while the lift was out of order", "for the third time", "shortly after the holidays",
)  # fmt: skip

_SENTENCE = re.compile(r".*?(?:[.!?。！？…][\"”’)]*\s+|[。！？]|\n+|\Z)", re.DOTALL)


def filler(seed: int) -> Iterator[str]:
    """Sentences that say nothing about any number, without end."""
    numbers = random.Random(seed)
    for index in count(1):
        who, did, what, when = (numbers.choice(words) for words in (WHO, DID, WHAT, WHEN))
        yield f"{who} {did} {what} {when}." + ("\n\n" if index % 8 == 0 else " ")


def sentences(text: str) -> Iterator[str]:
    """A text in pieces that end behind sentences and lines; joined they are the text."""
    for found in _SENTENCE.finditer(text):
        if found[0]:
            yield found[0]
