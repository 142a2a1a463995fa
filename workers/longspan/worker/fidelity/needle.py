"""A number hidden in a long text, the question for it, and whether an answer has it. Pure."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

PLACES = ("Lisbon", "Bergen", "Quito", "Nagoya", "Tromso", "Windhoek", "Cardiff", "Antwerp")
_BETWEEN_DIGITS = re.compile(r"(?<=\d)[,\s](?=\d)")


@dataclass(frozen=True, slots=True)
class Needle:
    """What is hidden.

    Attributes:
        number: seven digits, no two alike: whoever copies it token by token cannot lose the place.
        place: what the number belongs to.
    """

    number: str
    place: str

    @property
    def sentence(self) -> str:
        """What is put into the text."""
        return f"The secret number of {self.place} is {self.number}. "

    @property
    def question(self) -> str:
        """What is asked."""
        return f"What is the secret number of {self.place}?"

    @property
    def lead(self) -> str:
        """The answer up to the number."""
        return f"The secret number of {self.place} is "

    def found(self, answer: str) -> bool:
        """True where the number is in the answer; it may be written in groups of digits."""
        return self.number in re.findall(r"\d+", _BETWEEN_DIGITS.sub("", answer))


def random_needle(seed: str) -> Needle:
    """The needle of this seed."""
    numbers = random.Random(seed)
    digits = numbers.sample("0123456789", 7)
    return Needle("".join(digits), numbers.choice(PLACES))
