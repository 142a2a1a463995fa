"""What a caller may ask of the decoder, and what is refused by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from longspan.server.decoder.options import (
    GenerationLimits,
    GenerationOptions,
    generation_options,
)
from longspan.server.errors import InvalidRequest
from longspan.v1.inference_service_pb2 import GenerationOptions as Message
from longspan.v1.inference_service_pb2 import StopCondition

LIMITS = GenerationLimits()


def test_nothing_said_means_the_defaults() -> None:
    """Greedy, all tokens, no form; never more tokens than the server allows."""
    assert generation_options(Message(), LIMITS) == GenerationOptions()
    assert GenerationOptions().temperature == 0
    assert generation_options(Message(), GenerationLimits(max_tokens=5)).max_tokens == 5


def test_what_is_said_is_taken() -> None:
    """Every field, zeros included."""
    message = Message(
        max_tokens=7,
        temperature=0.5,
        top_k=4,
        top_p=0.25,
        min_p=0.125,
        seed=0,
        stop=[StopCondition(text="END"), StopCondition(token=0)],
        regex="a+",
    )
    options = generation_options(message, LIMITS)
    assert options == GenerationOptions(
        max_tokens=7,
        temperature=0.5,
        top_k=4,
        top_p=0.25,
        min_p=0.125,
        seed=0,
        stop_texts=("END",),
        stop_tokens=(0,),
        regex="a+",
    )
    assert not options.is_free_text


def test_a_policy_is_one_that_the_model_knows() -> None:
    """By its name; nothing said leaves the choice to the worker."""
    known = ("full", "hybrid")
    assert generation_options(Message(), LIMITS, policies=known).attention is None
    options = generation_options(Message(attention="hybrid"), LIMITS, policies=known)
    assert options.attention == "hybrid"


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("window", ("full", "hybrid"), "full, hybrid"),
        ("", ("full", "hybrid"), "full, hybrid"),
        ("Full", ("full",), "full"),
        ("x" * 10_000, ("full",), "full"),
        ("full", (), "none"),
    ],
)
def test_an_unknown_policy_is_refused_with_the_known_ones(
    name: str, known: tuple[str, ...], words: str
) -> None:
    """The message has what may be said, never what was said."""
    with pytest.raises(InvalidRequest) as raised:
        generation_options(Message(attention=name), LIMITS, policies=known)
    assert raised.value.field == "task.generation.attention"
    assert str(raised.value) == f"no such attention policy; this model knows {words}"


def test_an_experiment_without_its_maps_is_refused_with_the_option() -> None:
    """With them the model knows it, and it is a policy as others are."""
    name = "hierarchical-linear"
    with pytest.raises(InvalidRequest, match=r"feature maps \(--attention-maps FILE\).* full"):
        generation_options(Message(attention=name), LIMITS, policies=("full",))
    known = generation_options(Message(attention=name), LIMITS, policies=("full", name))
    assert known.attention == name


@pytest.mark.parametrize("schema", ['{"type": "object"}', "true", " true\n"])
def test_a_schema_is_passed_on_as_written(schema: str) -> None:
    """Whether it compiles is for the worker to say."""
    assert generation_options(Message(json_schema=schema), LIMITS).json_schema == schema


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", LIMITS.max_tokens + 1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", math.nan),
        ("min_p", -0.5),
        ("min_p", 1.5),
        ("min_p", math.nan),
        ("json_schema", ""),
        ("json_schema", "{"),
        ("json_schema", "[]"),
        ("json_schema", "false"),
        ("json_schema", '{"a": NaN}'),
        ("json_schema", "[" * 50_000),
        ("json_schema", f'{{"a": {"1" * 5000}}}'),
        ("json_schema", '"' + "x" * LIMITS.format_bytes + '"'),
        ("regex", ""),
        ("regex", "x" * (LIMITS.format_bytes + 1)),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_path(name: str, value: Any) -> None:
    """The path leads from the request to the field."""
    with pytest.raises(InvalidRequest) as raised:
        generation_options(Message(**{name: value}), LIMITS)
    assert raised.value.field == f"task.generation.{name}"
    assert len(str(raised.value)) < 200


def test_a_schema_that_nothing_fits_is_said_to_be_one() -> None:
    """The caller learns it from the header, not from a compiler."""
    with pytest.raises(InvalidRequest, match="false fits nothing"):
        generation_options(Message(json_schema=" false "), LIMITS)


@pytest.mark.parametrize(
    ("stops", "path"),
    [
        ([StopCondition(text="x"), StopCondition()], "stop[1]"),
        ([StopCondition(text="")], "stop[0].text"),
        ([StopCondition(text="x" * (LIMITS.stop_bytes + 1))], "stop[0].text"),
        ([StopCondition(text="x")] * (LIMITS.stops + 1), "stop"),
    ],
)
def test_a_bad_stop_is_refused_with_its_path(stops: list[StopCondition], path: str) -> None:
    """A condition of a kind that this server does not know has no kind at all here."""
    with pytest.raises(InvalidRequest) as raised:
        generation_options(Message(stop=stops), LIMITS)
    assert raised.value.field == f"task.generation.{path}"
