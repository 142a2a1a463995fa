"""What it costs to load and to compute pages, as measured, and which to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

FADING = 0.8
"""What an observation still counts when the next one comes."""

GAIN = 0.9
"""A page is computed instead of loaded where the wait for all of them shrinks by that much of
what loading takes: the processor is wanted by others too."""


class Rate:
    """Seconds that a unit of something takes, by what was observed last.

    Args:
        prior_s: believed before the first observation.
    """

    def __init__(self, prior_s: float) -> None:
        self._units = 0.0
        self._seconds = 0.0
        self._prior_s = prior_s

    @property
    def seconds(self) -> float:
        """Of one unit."""
        return self._seconds / self._units if self._units else self._prior_s

    def observe(self, units: float, seconds: float) -> None:
        """Take in that so many units took so long together."""
        if units > 0:
            self._units = FADING * self._units + units
            self._seconds = FADING * self._seconds + seconds


def pages_to_compute(compute_s: Sequence[float], load_s: float, ahead: int = 0) -> int:
    """How many of the first pages to compute while those behind them are loaded, last first.

    Both go on at once and meet; what counts is when the later of them is done. So nobody waits
    longer than for loading alone, or for computing alone.

    Args:
        compute_s: seconds that each page takes to compute.
        load_s: seconds that a page takes to load.
        ahead: pages of others that are loaded before.
    """
    pages = len(compute_s)
    computing = 0.0
    for done, seconds in enumerate(compute_s):
        computing += seconds
        if computing >= GAIN * load_s * (ahead + pages - done):
            return done
    return pages
