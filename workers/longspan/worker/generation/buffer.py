"""A growing run of integers, handed out as views instead of copies."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Element = TypeVar("Element", np.uint32, np.int32)


class Buffer(Generic[Element]):
    """Integers in one array that doubles when it is full.

    A view stays as it was when more is appended behind it; ``pop`` and ``clear`` are for the
    time when no view is in use.
    """

    def __init__(self, dtype: type[Element], capacity: int = 64) -> None:
        self._array: npt.NDArray[Element] = np.zeros(capacity, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, value: int) -> None:
        """Add one."""
        self._reserve(1)
        self._array[self._length] = value
        self._length += 1

    def extend(self, values: npt.ArrayLike) -> None:
        """Add many."""
        added = np.asarray(values, self._array.dtype)
        self._reserve(len(added))
        self._array[self._length : self._length + len(added)] = added
        self._length += len(added)

    def pop(self) -> int:
        """Remove the last one."""
        self._length -= 1
        return int(self._array[self._length])

    def fill(self, start: int, end: int, value: int) -> None:
        """Replace the elements [start, end); views see it."""
        assert end <= self._length
        self._array[start:end] = value

    def clear(self) -> None:
        """Forget all; the array stays as large as it is."""
        self._length = 0

    def view(self, start: int, end: int) -> npt.NDArray[Element]:
        """Elements [start, end), not copied."""
        assert end <= self._length
        return self._array[start:end]

    def _reserve(self, count: int) -> None:
        needed = self._length + count
        if needed > len(self._array):
            grown = np.zeros(max(needed, 2 * len(self._array)), self._array.dtype)
            grown[: self._length] = self._array[: self._length]
            self._array = grown
