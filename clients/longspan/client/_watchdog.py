"""Notices silence on a blocking call."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class Watch(Enum):
    """What the watchdog does."""

    # The caller is busy with what it received: nobody waits for the server.
    RESTING = "resting"
    WATCHING = "watching"
    EXPIRED = "expired"
    CLOSED = "closed"


class Watchdog:
    """Calls ``expire`` once when a single wait takes ``idle_s`` seconds.

    grpc's blocking iterator has no timeout between messages; cancelling the call from another
    thread is the way to end its wait.

    Attributes:
        state: EXPIRED says that the wait was ended from here.
    """

    def __init__(self, idle_s: float | None, expire: Callable[[], object]) -> None:
        self._idle_s = idle_s
        self._expire = expire
        self._condition = threading.Condition()
        self._since_s = 0.0
        self.state = Watch.RESTING

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keeps the watching thread for as long as the block lasts."""
        if self._idle_s is not None:
            threading.Thread(target=self._watch, args=(self._idle_s,), daemon=True).start()
        try:
            yield
        finally:
            self._enter(Watch.CLOSED)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block is one wait."""
        self._since_s = time.monotonic()
        self._enter(Watch.WATCHING)
        try:
            yield
        finally:
            self._enter(Watch.RESTING)

    def _enter(self, state: Watch) -> None:
        with self._condition:
            if self.state is not Watch.EXPIRED:
                self.state = state
            if state is Watch.CLOSED:
                self._condition.notify()

    def _watch(self, idle_s: float) -> None:
        with self._condition:
            while self.state in (Watch.RESTING, Watch.WATCHING):
                left_s = idle_s
                if self.state is Watch.WATCHING:
                    left_s = self._since_s + idle_s - time.monotonic()
                if left_s <= 0:
                    self.state = Watch.EXPIRED
                else:
                    self._condition.wait(left_s)
        if self.state is Watch.EXPIRED:
            self._expire()
