"""Whatever decides an answer is in its key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.server.decoder.options import GenerationOptions
from longspan.server.decoder.template import PromptParts
from longspan.server.identity import DocumentId, Tenant
from longspan.server.results.eligibility import Eligibility, Mode, eligibility
from longspan.server.results.key import Named, Recipe, canonical, result_key, seed_of
from longspan.server.tasks.method import Method
from longspan.server.tasks.task import Ask, Prompt, Summarize, Task

words = st.text(max_size=8)
numbers = st.integers(0, 9)
tasks: st.SearchStrategy[Task] = st.one_of(
    st.builds(Ask, words, numbers), st.builds(Summarize, numbers), st.builds(Prompt, words)
)
prompts = st.builds(PromptParts, words, words, words, words, words, st.booleans(), words, words)
options = st.builds(
    GenerationOptions,
    max_tokens=numbers,
    temperature=st.floats(0.01, 2.0),
    top_k=numbers,
    top_p=st.floats(0.1, 1.0),
    min_p=st.floats(0.0, 1.0),
    seed=st.none() | st.integers(0, 2**64 - 1),
    stop_texts=st.lists(words, max_size=2).map(tuple),
    stop_tokens=st.lists(numbers, max_size=2).map(tuple),
    json_schema=st.none() | words,
    regex=st.none() | words,
    attention=st.none() | words,
)
recipes = st.builds(
    Recipe,
    method=st.sampled_from(Method),
    task=tasks,
    fingerprint=words,
    dtype=words,
    attention=words,
    policy=words,
    files=words,
    prompt=prompts,
    options=options,
)
documents = st.lists(
    st.builds(Named, document_id=words.map(DocumentId), sha256=words), min_size=1, max_size=3
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
)


def _other(value: Any) -> Any:
    """A different value of the same kind."""
    match value:
        case None:
            return "something"
        case Enum():
            return next(one for one in type(value) if one is not value)
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (*value, "x")
    raise AssertionError(f"what is {value!r}?")


def _changed(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with each of its fields changed, one at a time."""
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            for name, other in _changed(inner):
                yield f"{field.name}.{name}", replace(value, **{field.name: other})
        else:
            yield field.name, replace(value, **{field.name: _other(inner)})


@settings(max_examples=25)
@given(words.map(Tenant), documents, recipes)
def test_any_change_of_one_field_changes_the_key(
    tenant: Tenant, named: list[Named], recipe: Recipe
) -> None:
    key = result_key(tenant, named, recipe)
    assert len(key) == 32
    assert result_key(tenant, list(named), replace(recipe)) == key
    assert result_key(Tenant(tenant + "x"), named, recipe) != key
    for field, other in _changed(recipe):
        assert result_key(tenant, named, other) != key, field
    for place, one in enumerate(named):
        for field, other in _changed(one):
            changed = [*named[:place], other, *named[place + 1 :]]
            assert result_key(tenant, changed, recipe) != key, field
    assert result_key(tenant, [*named, named[0]], recipe) != key


@given(values, values)
def test_different_values_have_different_encodings(one: object, other: object) -> None:
    same = repr(one) == repr(other)
    assert (canonical(one) == canonical(other)) == same


def test_texts_that_are_cut_elsewhere_are_different() -> None:
    assert canonical(("ab", "c")) != canonical(("a", "bc"))
    assert canonical((("a",), "b")) != canonical(("a", ("b",)))
    assert canonical("1") != canonical(1) != canonical(1.0)
    assert canonical(Ask("a", 1)) != canonical(Prompt("a"))


def test_what_no_request_consists_of_has_no_encoding() -> None:
    with pytest.raises(TypeError):
        canonical([1])


def test_the_seed_counts_where_tokens_are_drawn() -> None:
    named = [Named(document_id=DocumentId("d"), sha256="00")]

    def key(**changes: Any) -> bytes:
        recipe = Recipe(
            method=Method.GENERATIVE,
            task=Prompt("Go on."),
            fingerprint="f",
            dtype="float32",
            options=GenerationOptions(**changes),
        )
        return result_key(Tenant("a"), named, recipe)

    assert key(temperature=0.0, seed=1) == key(temperature=0.0, seed=2) == key(temperature=0.0)
    assert key(temperature=0.5, seed=1) != key(temperature=0.5, seed=2)


@given(tasks, options)
def test_a_seed_that_is_left_to_the_server_follows_from_the_request(
    task: Task, chosen: GenerationOptions
) -> None:
    seed = seed_of(task, chosen)
    assert 0 <= seed < 2**64
    assert seed_of(task, replace(chosen, seed=7)) == seed
    assert seed_of(Prompt("something else"), chosen) != seed_of(Prompt("something"), chosen)


@given(st.sampled_from(Mode), st.none() | options, st.booleans())
def test_who_may_be_answered_from_the_cache(
    mode: Mode, chosen: GenerationOptions | None, any_seed: bool
) -> None:
    """As the rule reads in words."""
    verdict = eligibility(mode, chosen, any_seed=any_seed)
    settled = chosen is None or (chosen.seed is not None and not any_seed)
    if mode is Mode.OFF:
        assert verdict is Eligibility.NO
    elif settled:
        assert verdict is Eligibility.YES
    else:
        assert (verdict is Eligibility.WITH_SEED) == (mode is Mode.FORCE)
    greedy = GenerationOptions(temperature=0.0)
    if mode is not Mode.OFF:
        assert eligibility(mode, greedy, any_seed=any_seed) is Eligibility.YES
