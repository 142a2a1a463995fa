"""How a decoder chooses its tokens: the caller's options, checked, with our defaults."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from longspan.server.errors import InvalidRequest
from longspan.v1 import inference_service_pb2

PATH = "task.generation"
# A policy that is known only where there are feature maps, and what is said where there are none.
EXPERIMENT = "hierarchical-linear"
UNMAPPED = f"{EXPERIMENT} is an experiment that needs feature maps (--attention-maps FILE)"
DEFAULT_MAX_TOKENS = 1024
# Answers are checked against the document, and the most likely words are the faithful ones;
# the same question gets the same answer.
DEFAULT_TEMPERATURE = 0.0
# Beyond it the distribution is flat to every purpose.
HIGHEST_TEMPERATURE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationLimits:
    """Upper bounds of the options; sizes in bytes."""

    max_tokens: int = 32_768
    stops: int = 16
    stop_bytes: int = 256
    format_bytes: int = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """Options within their ranges.

    Attributes:
        max_tokens: of the answer, reasoning included; at least 1.
        temperature: 0 is greedy.
        top_k: 0 means all tokens.
        top_p: in (0, 1].
        min_p: in [0, 1].
        seed: None where the caller leaves it to the server.
        json_schema: a JSON object, or ``true``; excludes ``regex``.
        regex: what the whole answer must match.
        attention: the policy that the documents are read under; None leaves it to the worker.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = DEFAULT_TEMPERATURE
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    stop_texts: tuple[str, ...] = ()
    stop_tokens: tuple[int, ...] = ()
    json_schema: str | None = field(default=None, repr=False)
    regex: str | None = field(default=None, repr=False)
    attention: str | None = None

    @property
    def is_free_text(self) -> bool:
        """True where no schema and no expression binds the answer."""
        return self.json_schema is None and self.regex is None


def generation_options(
    message: inference_service_pb2.GenerationOptions,
    limits: GenerationLimits,
    *,
    policies: Collection[str] = (),
) -> GenerationOptions:
    """The options named by the client; what it leaves out takes the default.

    Args:
        policies: names of the attention policies that the model knows.

    Raises:
        InvalidRequest: a value out of its range, with the path of its field.
    """
    defaults = GenerationOptions()
    max_tokens = message.max_tokens if message.HasField("max_tokens") else defaults.max_tokens
    if not message.HasField("max_tokens"):
        max_tokens = min(max_tokens, limits.max_tokens)
    temperature = message.temperature if message.HasField("temperature") else defaults.temperature
    top_p = message.top_p if message.HasField("top_p") else defaults.top_p
    _check(1 <= max_tokens <= limits.max_tokens, "max_tokens", f"between 1 and {limits.max_tokens}")
    _check(
        0 <= temperature <= HIGHEST_TEMPERATURE,
        "temperature",
        f"between 0 and {HIGHEST_TEMPERATURE:g}",
    )
    _check(message.top_k >= 0, "top_k", "0 or more")
    _check(0 < top_p <= 1, "top_p", "above 0 and at most 1")
    _check(0 <= message.min_p <= 1, "min_p", "between 0 and 1")
    texts, tokens = _stops(message.stop, limits)
    return GenerationOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=message.top_k,
        top_p=top_p,
        min_p=message.min_p,
        seed=message.seed if message.HasField("seed") else None,
        stop_texts=texts,
        stop_tokens=tokens,
        json_schema=_schema(message, limits),
        regex=_regex(message, limits),
        attention=_attention(message, policies),
    )


def _check(holds: bool, name: str, rule: str) -> None:
    """NaN compares false, and so breaks every rule."""
    if not holds:
        raise InvalidRequest(f"must be {rule}", field=f"{PATH}.{name}")


def _stops(
    conditions: Sequence[inference_service_pb2.StopCondition], limits: GenerationLimits
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    # Counted before one of them is looked at: a message can hold a million.
    _check(len(conditions) <= limits.stops, "stop", f"at most {limits.stops} conditions")
    texts: list[str] = []
    tokens: list[int] = []
    for index, condition in enumerate(conditions):
        name = f"stop[{index}]"
        match condition.WhichOneof("kind"):
            case "text":
                _check_size(condition.text, limits.stop_bytes, f"{name}.text")
                texts.append(condition.text)
            case "token":
                tokens.append(condition.token)
            case _:
                raise InvalidRequest(
                    "unknown stop type: name text or token", field=f"{PATH}.{name}"
                )
    return tuple(texts), tuple(tokens)


def _schema(
    message: inference_service_pb2.GenerationOptions, limits: GenerationLimits
) -> str | None:
    if message.WhichOneof("format") != "json_schema":
        return None
    _check_size(message.json_schema, limits.format_bytes, "json_schema")
    try:
        schema = json.loads(message.json_schema, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"is not JSON: {reason}", field=f"{PATH}.json_schema") from error
    _check(isinstance(schema, dict | bool), "json_schema", "an object or true")
    _check(schema is not False, "json_schema", "a schema that something fits: false fits nothing")
    return message.json_schema


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _regex(
    message: inference_service_pb2.GenerationOptions, limits: GenerationLimits
) -> str | None:
    if message.WhichOneof("format") != "regex":
        return None
    _check_size(message.regex, limits.format_bytes, "regex")
    return message.regex


def _attention(
    message: inference_service_pb2.GenerationOptions, policies: Collection[str]
) -> str | None:
    if not message.HasField("attention"):
        return None
    if message.attention not in policies:
        known = ", ".join(policies) or "none"
        lacking = UNMAPPED if message.attention == EXPERIMENT else "no such attention policy"
        raise InvalidRequest(f"{lacking}; this model knows {known}", field=f"{PATH}.attention")
    return message.attention


def _check_size(text: str, most_bytes: int, name: str) -> None:
    _check(bool(text), name, "not empty")
    size_bytes = len(text.encode())
    _check(size_bytes <= most_bytes, name, f"at most {most_bytes} bytes, not {size_bytes}")
