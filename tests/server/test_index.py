"""Index files come back as they were written, or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from longspan.server.index.file import _ARRAYS, load, save
from longspan.server.index.growing_index import GrowingIndex
from longspan.server.index.passage_index import PassageIndex
from longspan.server.text.passages import Passage
from longspan.server.text.spans import Span

KEY = "a document and a model"
DIMENSION = 4


def passage(start: int, sentences: int, terms: list[int]) -> Passage:
    """A passage of sentences of 10 bytes each."""
    spans = tuple(Span(start + 10 * n, start + 10 * n + 10) for n in range(sentences))
    whole = Span(start, start + 10 * sentences)
    return Passage(whole, spans, np.arange(3, dtype=np.uint32), np.array(terms, np.uint32))


def unit_vectors(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Random directions."""
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


TERMS = st.lists(st.integers(0, 2**32 - 1), max_size=5)


@st.composite
def indexes(draw: st.DrawFn) -> PassageIndex:
    """Any index, passages of any number of sentences and terms."""
    growing, start = GrowingIndex(), 0
    for sentences, terms in draw(st.lists(st.tuples(st.integers(1, 4), TERMS), max_size=8)):
        growing.add([passage(start, sentences, terms)])
        start += 10 * sentences + 1
    while growing.waiting:
        first, batch = growing.take(max_texts=3, max_tokens=100)
        growing.put(first, unit_vectors(len(batch), first))
    return growing.freeze(tokens=draw(st.integers(0, 2**40)), dimension=DIMENSION)


def same(one: PassageIndex, other: PassageIndex) -> bool:
    """Equal to the bit."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in _ARRAYS]
    return one.tokens == other.tokens and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs
    )


@settings(max_examples=60, deadline=None)
@given(index=indexes())
def test_an_index_comes_back_as_it_was_written(index: PassageIndex) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.index"
        save(path, index, key=KEY)
        found = load(path, key=KEY)
        assert found is not None
        assert same(found, index)
        assert load(path, key="another document") is None
        assert [file.name for file in Path(folder).iterdir()] == ["one.index"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PassageIndex]:
    """A file of a small index."""
    growing = GrowingIndex()
    growing.add([passage(0, 2, [1, 2, 3]), passage(30, 1, [7])])
    growing.put(*(growing.take(max_texts=9, max_tokens=99)[0], unit_vectors(2)))
    index = growing.freeze(tokens=1234, dimension=DIMENSION)
    path = tmp_path_factory.mktemp("index") / "one.index"
    save(path, index, key=KEY)
    return path, index


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_a_flipped_byte_anywhere_gives_nothing_or_the_same_index(
    written: tuple[Path, PassageIndex], tmp_path: Path, flip: int
) -> None:
    path, index = written
    content = path.read_bytes()
    damaged = tmp_path / "damaged.index"
    for at in range(len(content)):
        damaged.write_bytes(content[:at] + bytes([content[at] ^ flip]) + content[at + 1 :])
        found = load(damaged, key=KEY)
        assert found is None or same(found, index), f"byte {at}"


def test_a_cut_or_longer_file_is_nothing(
    written: tuple[Path, PassageIndex], tmp_path: Path
) -> None:
    content = written[0].read_bytes()
    damaged = tmp_path / "damaged.index"
    for length in range(len(content)):
        damaged.write_bytes(content[:length])
        assert load(damaged, key=KEY) is None
    damaged.write_bytes(content + b"\0")
    assert load(damaged, key=KEY) is None


def test_no_file_and_no_folder_are_nothing_and_a_refused_write_leaves_nothing(
    written: tuple[Path, PassageIndex], tmp_path: Path
) -> None:
    assert load(tmp_path / "absent", key=KEY) is None
    assert load(tmp_path, key=KEY) is None
    with pytest.raises(OSError, match=r"absent|No such file"):
        save(tmp_path / "absent" / "one.index", written[1], key=KEY)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), max_size=40))
def test_batches_take_every_passage_once_in_order_within_their_bounds(lengths: list[int]) -> None:
    growing = GrowingIndex()
    empty = np.zeros(0, np.uint32)
    growing.add(
        [
            Passage(Span(n, n + 1), (Span(n, n + 1),), np.full(length, n, np.uint32), empty)
            for n, length in enumerate(lengths)
        ]
    )
    taken: list[NDArray[np.uint32]] = []
    while growing.waiting:
        first, batch = growing.take(max_texts=4, max_tokens=50)
        assert first == len(taken)
        assert 1 <= len(batch) <= 4
        assert len(batch) == 1 or sum(map(len, batch)) <= 50
        taken += batch
    assert [len(ids) for ids in taken] == lengths
    assert all((ids == n).all() for n, ids in enumerate(taken))
