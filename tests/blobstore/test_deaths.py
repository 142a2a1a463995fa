"""Writers die at every step; whoever opens the folder next finds it in order."""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import longspan.blobstore
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.rows import Rows
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import (
    blob_files,
    check_consistent,
    key,
    opened,
    payload,
    put,
    remove_index,
)

SOURCES = str(Path(longspan.blobstore.__file__).parent)
SMALL = StoreLimits(budget_bytes=5_000)
STRIDE = int(os.environ.get("TEST_STRIDE", "8"))
"""Of so many lines one is died at, from a random one on; 1 tries all, in a minute."""


def in_child(act: Callable[[], None]) -> int:
    """Run something in a process of its own; returns its process id."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(0)
    return child


def killed(child: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die_at_line(count: int) -> None:
    """Kill this process when it has come to its count-th line of the store's code."""
    left = count

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def one_put(store: BlobStore) -> None:
    put(store, 9, size=1500)  # two others must go


def one_removal(store: BlobStore) -> None:
    store.remove_subject("t", "s")


def one_damaged_read(store: BlobStore) -> None:
    path = blob_files(store._folder.root)[0]
    path.write_bytes(b"?" * 1000)
    store.read(bytes.fromhex(path.stem))


@pytest.mark.parametrize(
    ("act", "lines"), [(one_put, 150), (one_removal, 50), (one_damaged_read, 30)]
)
def test_death_at_any_line_leaves_a_folder_in_order(
    tmp_path: Path, act: Callable[[BlobStore], None], lines: int
) -> None:
    line = random.randrange(STRIDE)
    print(f"from line {line + 1}")
    died = True
    while died:
        line += 1
        folder = tmp_path / str(line)
        with opened(folder, SMALL) as store:
            for number in range(4):
                put(store, number, subject="s" if number < 2 else "")

        def work(folder: Path = folder, line: int = line) -> None:
            with opened(folder, SMALL) as store:
                die_at_line(line)
                act(store)
                sys.settrace(None)

        died = killed(in_child(work))
        with opened(folder, SMALL) as store:
            check_in_order(folder, store, damaged=act is one_damaged_read)
        line += STRIDE - 1
    assert line > lines


def check_in_order(folder: Path, store: BlobStore, *, damaged: bool) -> None:
    if damaged:
        store.verify()
    check_consistent(folder, store)
    assert store.stats.bytes <= SMALL.budget_bytes
    for number in [0, 1, 2, 3]:
        assert store.read(key(number)) in ([payload(number), None])
    assert store.read(key(9)) in (payload(9, 1500), None)
    assert store.stats.puts == {}
    assert put(store, 10) == "stored"


def test_a_torn_write_leaves_nothing(tmp_path: Path) -> None:
    choose = random.Random(3)
    size = 3_000_000
    content = [payload(number, size) for number in range(4)]
    limits = StoreLimits(budget_bytes=3 * size)
    seen_torn = 0

    def work() -> None:
        with opened(tmp_path, limits) as store:
            os.write(write_end, b"x")
            for number in range(10_000):
                store.put(key(number % 4), [content[number % 4]], tenant="t")

    for _ in range(40):
        read_end, write_end = os.pipe()
        child = in_child(work)
        os.read(read_end, 1)
        time.sleep(choose.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        assert killed(child)
        os.close(read_end)
        os.close(write_end)
        seen_torn += len(os.listdir(tmp_path / "tmp"))
        with opened(tmp_path, limits) as store:
            check_consistent(tmp_path, store)
    assert seen_torn > 0


def test_what_the_dead_reserved_is_free_for_the_living(tmp_path: Path) -> None:
    """Not only at the next start: a store that is open takes it when it needs room."""

    limits, size = StoreLimits(budget_bytes=2_500_000), 2_000_000

    def work() -> None:
        with opened(tmp_path, limits) as store:
            # The kernel kills whoever makes a file longer: in the middle of the payload.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            put(store, 1, size)
            put(store, 2, size)

    with opened(tmp_path, limits) as store:
        for number in (1, 2):  # the same key, and another one
            status = os.waitpid(in_child(work), 0)[1]
            assert os.waitstatus_to_exitcode(status) == -signal.SIGXFSZ
            assert len(os.listdir(tmp_path / "tmp")) == 1
            store.refresh()
            assert store.stats.bytes > size
            assert put(store, number, size) == "stored"
            assert os.listdir(tmp_path / "tmp") == []
            assert [path.stat().st_size for path in blob_files(tmp_path)] == [store.stats.bytes]
            store.clear()


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_the_name_given(folder: Path) -> None:
    """Between the renaming and the end of the transaction."""
    with opened(folder, SMALL) as store:
        Rows.settle = die  # type: ignore[method-assign, assignment]
        put(store, 1, size=3_000)


@pytest.mark.parametrize("number", [1, 2])
def test_a_name_that_a_dead_writer_gave_is_free_for_the_living(tmp_path: Path, number: int) -> None:
    with opened(tmp_path, SMALL) as store:
        assert killed(in_child(lambda: die_with_the_name_given(tmp_path)))
        assert len(blob_files(tmp_path)) == 1
        assert put(store, number, size=3_000) == "stored"
        assert [path.stem for path in blob_files(tmp_path)] == [key(number).hex()]
        assert store.read(key(number)) == payload(number, 3_000)


def test_what_the_dead_left_goes_even_if_the_index_is_lost(tmp_path: Path) -> None:
    def work() -> None:
        with opened(tmp_path, SMALL) as store:
            store._storing._folder.settle = die  # type: ignore[method-assign, assignment]
            put(store, 1)

    with opened(tmp_path, SMALL) as living:
        assert killed(in_child(work))
        living.close()
    assert len(os.listdir(tmp_path / "tmp")) == len(os.listdir(tmp_path / "writers")) == 1
    remove_index(tmp_path)
    with opened(tmp_path, SMALL) as store:
        check_consistent(tmp_path, store)
