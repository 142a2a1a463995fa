"""Documents of the recall task: records of a key and its values, hidden in filler. Pure.

Associative recall as in "Zoology" (Arora et al., 2023, arXiv:2312.04927), with values of several
tokens and filler of several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.recall.vocabulary import ASK, END, FILLER, KEYS, VALUES

ANSWER_VALUES = 6
RECORD_TOKENS = 1 + ANSWER_VALUES + 1
"""Key, values, end."""

QUESTION_TOKENS = 2
LOOSE_VALUES = 0.01
"""Share of filler tokens that are values of no record."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One document and what it says.

    Attributes:
        tokens: int64 [n].
        keys: int64 [records], in the order of their places.
        values: int64 [records, ANSWER_VALUES].
        places: int64 [records], where each record's key stands.
    """

    tokens: Integers
    keys: Integers
    values: Integers
    places: Integers

    def in_records(self) -> npt.NDArray[np.bool_]:
        """Which tokens are of records: bool [n]."""
        inside = np.zeros(len(self.tokens), bool)
        inside[self.places[:, None] + np.arange(RECORD_TOKENS)] = True
        return inside

    def question(self, record: int) -> Integers:
        """What is asked behind the document."""
        return np.array([ASK, self.keys[record]])

    def answer(self, record: int) -> Integers:
        """What the record says, and its end: int64 [ANSWER_VALUES + 1]."""
        return np.append(self.values[record], END)


def document(tokens: int, records: int, random: np.random.Generator) -> Document:
    """A document of so many tokens.

    Raises:
        ValueError: the records do not fit, or there are not so many keys.
    """
    spare = tokens - records * RECORD_TOKENS
    if spare < 0 or not 0 < records <= len(KEYS):
        raise ValueError(f"{records} records do not fit into {tokens} tokens")
    keys = KEYS.start + random.permutation(len(KEYS))[:records]
    values = random.integers(VALUES.start, VALUES.stop, (records, ANSWER_VALUES))
    gaps = np.sort(random.integers(0, spare + 1, records))
    places = gaps + RECORD_TOKENS * np.arange(records)
    text = filler(tokens, random)
    for place, key, said in zip(places, keys, values, strict=True):
        text[place : place + RECORD_TOKENS] = [key, *said, END]
    return Document(text, keys, values, places)


def filler(tokens: int, random: np.random.Generator) -> Integers:
    """Words without meaning: even, uneven as in language, or a phrase again and again."""
    size = len(FILLER)
    match random.integers(3):
        case 0:
            text = random.integers(0, size, tokens)
        case 1:
            ranks = np.minimum(random.pareto(0.7, tokens), size - 1).astype(np.int64)
            text = random.permutation(size)[ranks]
        case _:
            phrase = random.integers(0, size, random.integers(2, 65))
            text = np.resize(phrase, tokens)
    loose = random.random(tokens) < LOOSE_VALUES
    values = random.integers(VALUES.start, VALUES.stop, tokens)
    return np.where(loose, values, FILLER.start + text)
