"""A line of a worker's standard error: what its logging wrote, or anything else."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

_LOGGED = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) ([\w.]+): (.*)", re.DOTALL)


class StderrLine(NamedTuple):
    """One line, as the server logs it again; ``logger`` is empty where no logging wrote it."""

    level: int
    logger: str
    message: str

    @property
    def explains(self) -> bool:
        """Whether it may say why the worker dies: any line but a logged one without worry."""
        return not self.logger or self.level >= logging.WARNING


def parse_line(line: str) -> StderrLine:
    """What a worker logged keeps its level and its logger; all else is information."""
    logged = _LOGGED.fullmatch(line)
    if logged is None:
        return StderrLine(logging.INFO, "", line)
    level, logger, message = logged.groups()
    return StderrLine(logging.getLevelNamesMapping()[level], logger, message)
