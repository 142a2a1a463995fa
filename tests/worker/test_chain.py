"""Page keys tell apart whatever must not share a page."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from longspan.worker.kv.chain import KeySpace, PageKey, child

SPACE = KeySpace("tenant", "fingerprint", "float32", "full", 1)
names = st.text(max_size=6)
spaces = st.builds(KeySpace, names, names, names, names, st.integers(0, 3))
KEY_OF_ZEROS = "63aaf88c34f106e2f957ac2a850cef4a9cb05fdcef399ace0dcd29cad2af6931"
pages = st.binary(min_size=8, max_size=8)


def chain(space: KeySpace, texts: list[bytes]) -> list[PageKey]:
    """The keys of a text's pages."""
    keys = [space.root()]
    for tokens in texts:
        keys.append(child(keys[-1], tokens))
    return keys[1:]


@given(spaces, spaces)
def test_roots_are_equal_only_where_every_field_is(one: KeySpace, other: KeySpace) -> None:
    """Fields carry a tag and their length, so no two of them can be mistaken for others."""
    assert (one.root() == other.root()) == (one == other)


def test_text_that_moves_from_one_field_to_the_next_changes_the_root() -> None:
    """The classic fault of joined fields."""
    moved = replace(SPACE, tenant="tenantf", fingerprint="ingerprint")
    assert moved.root() != SPACE.root()


@given(st.lists(pages, max_size=4), st.lists(pages, max_size=4))
def test_keys_agree_exactly_as_far_as_the_texts_do(one: list[bytes], other: list[bytes]) -> None:
    """A page's key names its tokens and all that come before them."""
    agree = [a == b for a, b in zip(chain(SPACE, one), chain(SPACE, other), strict=False)]
    lengths = range(1, min(len(one), len(other)) + 1)
    assert agree == [one[:length] == other[:length] for length in lengths]


def test_a_key_is_a_sha_256() -> None:
    """Keys are 32 bytes, and the same in every process."""
    assert chain(SPACE, [bytes(8)])[0].hex() == KEY_OF_ZEROS
