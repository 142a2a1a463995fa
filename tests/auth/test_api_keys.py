"""API keys: whose they are, and that nothing else is one."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.auth.api_keys import ApiKeys, new_key
from longspan.server.auth.refusal import Refusal
from longspan.server.errors import ConfigError, Unauthenticated
from longspan.server.identity import Tenant

A, B = new_key(Tenant("a")), new_key(Tenant("b"))
KEYS = ApiKeys.parse(f"# two tenants\n\n{A.line}\n  {B.line}  \n")


def refusal(key: str) -> Refusal:
    with pytest.raises(Unauthenticated) as refused:
        KEYS.tenant(key)
    return refused.value.refusal


def test_each_key_is_its_tenants() -> None:
    assert (KEYS.tenant(A.key), KEYS.tenant(B.key)) == ("a", "b")
    assert len(KEYS) == 2


def test_a_line_does_not_say_the_key() -> None:
    assert A.key.rpartition("_")[2] not in A.line
    assert A.key not in repr(A)


def test_two_keys_are_never_the_same() -> None:
    assert len({new_key(Tenant("a")).key for _ in range(100)}) == 100


def test_a_secret_belongs_to_its_id() -> None:
    mixed = f"{A.key[:20]}_{B.key[21:]}"
    assert mixed[:20] == A.key[:20]
    assert refusal(mixed) is Refusal.WRONG_KEY


def test_what_is_unknown_and_what_is_no_key_are_told_apart_for_the_counters() -> None:
    assert refusal(new_key(Tenant("a")).key) is Refusal.UNKNOWN_KEY
    for text in ("", "lsk_", A.key[:-1], f"{A.key}x", A.key.upper(), A.line.split()[2]):
        assert refusal(text) is Refusal.MALFORMED


@given(st.integers(21, 63), st.sampled_from("abcXYZ019_-"))
def test_no_other_character_will_do(place: int, letter: str) -> None:
    changed = A.key[:place] + letter + A.key[place + 1 :]
    if changed != A.key:
        assert refusal(changed) is Refusal.WRONG_KEY


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_no_text_is_a_key_by_chance(text: str) -> None:
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    with pytest.raises(ValueError, match="line") if lines else nullcontext():
        ApiKeys.parse(text)


@pytest.mark.parametrize(
    "line",
    ["x", A.line[:-1], f"{A.line} more", A.line.replace(" a ", " a/b "), f"{A.line}\n" * 2],
    # Not by their content: keys are new in every process that collects these tests.
    ids=["word", "short", "more", "tenant", "twice"],
)
def test_a_bad_line_is_named_by_its_number_and_not_quoted(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# comment\n{B.line}\n{line}")
    with pytest.raises(ConfigError, match=r"line [34]") as refused:
        ApiKeys.read(path)
    assert A.line.split()[2][:20] not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ApiKeys.read(tmp_path / "absent")
    (tmp_path / "keys").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        ApiKeys.read(tmp_path / "keys")
