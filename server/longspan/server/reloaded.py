"""Something read from files, read again when they change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from longspan.server.errors import ConfigError

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[tuple[int, ...] | None, ...]

LOOK_EVERY_S = 1.0


class Reloaded(Generic[T]):
    """The value of the newest files that can be used; looked for when it is asked for.

    What cannot be read keeps the value before it: a half-written file must not lock
    everybody out. May be called from any thread.

    Args:
        paths: the files that ``load`` reads.
        load: reads them; raises ``ConfigError``.
        every_s: how long nobody looks at the files again.

    Raises:
        ConfigError: the files cannot be used at the start.
    """

    def __init__(
        self, paths: Sequence[Path], load: Callable[[], T], every_s: float = LOOK_EVERY_S
    ) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._every_s = every_s
        self._lock = threading.Lock()
        self._looked_s = time.monotonic()
        self._stamp = _stamp(self._paths)
        self._value = load()

    def value(self) -> T:
        """The current value."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._looked_s >= self._every_s:
                self._looked_s = now_s
                self._look()
            return self._value

    def _look(self) -> None:
        # The stamp is taken first: what changes while it is read is read once more.
        stamp = _stamp(self._paths)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._value = self._load()
        except ConfigError as error:
            log.error("not reloaded, what was there before stays in use: %s", error)
        else:
            log.info("reloaded %s", ", ".join(str(path) for path in self._paths))


def _stamp(paths: Sequence[Path]) -> Stamp:
    return tuple(_stamp_of(path) for path in paths)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # The inode too: Kubernetes renames a folder of links over the one before.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
