"""Generated answers: what is asked for, what arrives, what happens when the stream breaks."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import pytest

from longspan.client import (
    AnswerChanged,
    Ask,
    AsyncClient,
    AttentionUsage,
    Client,
    Event,
    FinishReason,
    Generation,
    Method,
    Progress,
    Prompt,
    Reasoning,
    Stage,
    Summarize,
    Task,
    TextDelta,
    UnverifiedQuote,
)
from longspan.client._requests import task_message
from longspan.v1 import inference_service_pb2 as inference
from tests.client.callers import Caller
from tests.client.peer import (
    PlainCut,
    citation,
    delta,
    generated,
    prefilling,
    reasoning,
    running_peer,
    unverified,
)

BOTH = pytest.mark.parametrize("caller", Caller)
SCHEMA = {"type": "object"}
OPTIONS = Generation(
    max_tokens=64,
    temperature=0.5,
    top_k=40,
    top_p=0.75,
    min_p=0.25,
    seed=2**64 - 1,
    stop=("\n\n", 7),
    json_schema=SCHEMA,
    attention="hybrid",
)
TASKS: list[Task] = [
    Ask("Why?", method="generative", generation=OPTIONS),
    Summarize(method=Method.GENERATIVE, generation=OPTIONS),
    Prompt("Translate.", method="generative", generation=OPTIONS),
]
ANSWER = [
    prefilling(100, 40, cached=32, ahead=2),
    reasoning("Let me "),
    reasoning("see. "),
    delta("It says “yes” "),
    citation(1, "yes"),
    delta("and “perhaps”."),
    unverified("perhaps"),
]
RECUT = [
    reasoning("Let me see. "),
    delta("It says “y"),
    delta("es” and “perhaps”."),
    citation(1, "yes"),
    unverified("perhaps"),
]


def told(events: list[Event], kind: type[Reasoning] | type[TextDelta]) -> str:
    """All text of one kind of event."""
    return "".join(event.text for event in events if isinstance(event, kind))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_every_option_stands_in_the_message_of_every_task(task: Task) -> None:
    """Options and method are sent as they were given, whatever the task."""
    message = task_message(task, seed=1)
    assert message.method == inference.METHOD_GENERATIVE
    sent = message.generation
    assert (sent.max_tokens, sent.temperature, sent.top_k) == (64, 0.5, 40)
    assert (sent.top_p, sent.min_p, sent.seed) == (0.75, 0.25, 2**64 - 1)
    assert [(one.text, one.token) for one in sent.stop] == [("\n\n", 0), ("", 7)]
    assert json.loads(sent.json_schema) == SCHEMA
    assert sent.attention == "hybrid"
    assert not sent.HasField("regex")


def test_what_is_left_out_is_left_to_the_server_but_for_the_seed() -> None:
    """A task without options names no method and no option but the drawn seed, as any seed."""
    message = task_message(Ask("Why?"), seed=17)
    assert message.method == inference.METHOD_UNSPECIFIED
    assert [field.name for field, _ in message.generation.ListFields()] == ["seed", "any_seed"]
    assert message.generation.seed == 17


def test_zero_is_an_option_and_not_an_absence() -> None:
    """Greedy decoding, no tokens at all, and a seed of 0 are sent as such."""
    options = Generation(temperature=0, max_tokens=0, seed=0, regex="a*")
    sent = task_message(Ask("Why?", generation=options), seed=17).generation
    assert {field.name for field, _ in sent.ListFields()} == {
        "temperature",
        "max_tokens",
        "seed",
        "regex",
    }


def test_an_extractive_task_sends_no_options() -> None:
    """The encoder has no use for them."""
    message = task_message(Ask("Why?", method="extractive", generation=OPTIONS), seed=17)
    assert message.method == inference.METHOD_EXTRACTIVE
    assert not message.HasField("generation")


def test_options_are_values() -> None:
    """Equal options are equal and hash alike, also those made from a mapping."""
    assert Generation(json_schema=SCHEMA) == Generation(json_schema=json.dumps(SCHEMA))
    assert len({Generation(stop="a"), Generation(stop=["a"]), Generation(stop=("a",))}) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"json_schema": SCHEMA, "regex": "a"}, ValueError, "not both"),
        ({"seed": -1}, ValueError, "seed must be between 0"),
        ({"max_tokens": 2**31}, ValueError, "max_tokens"),
        ({"stop": ("",)}, ValueError, "empty"),
        ({"stop": (2**32,)}, ValueError, "stop must be between"),
        ({"stop": (1.5,)}, TypeError, "a stop is a text or the id of a token"),
    ],
)
def test_options_that_no_message_can_carry_are_refused_where_they_are_made(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """The mistake is reported at the line that makes it, not when the call runs."""
    with pytest.raises(error, match=words):
        Generation(**options)


async def test_a_method_that_does_not_exist_is_refused_before_anything_is_sent() -> None:
    """A wrong word raises instead of leaving an upload without its header."""
    async with running_peer() as (peer, target), AsyncClient(target) as client:
        task = Ask("Why?", method="magic")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="magic"):
            async with client.analyze(b"text", task) as stream:
                await stream.result()
        assert peer.calls == []


@BOTH
async def test_an_answer_has_its_reasoning_quotations_and_figures(caller: Caller) -> None:
    """Every event arrives as a value, and the answer collects them."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        peer.script.completed = generated(finish_reason=inference.FINISH_REASON_LENGTH)
        events, answer = await caller.ask(target)
    assert answer.text == "It says “yes” and “perhaps”."
    assert answer.reasoning == "Let me see. "
    assert [one.quote for one in answer.citations] == ["yes"]
    assert answer.unverified == (UnverifiedQuote("perhaps"),)
    assert answer.completed.finish_reason is FinishReason.LENGTH
    assert answer.completed.usage.output_tokens == 60
    assert answer.completed.timings.per_token_s == pytest.approx(0.025)
    progress = [event for event in events if isinstance(event, Progress)][1]
    assert progress.stage is Stage.PREFILLING
    assert (progress.tokens_prefilled, progress.tokens_cached) == (40, 32)


@BOTH
async def test_an_answer_says_how_it_was_read_where_the_server_does(caller: Caller) -> None:
    """The policy's figures are values; an answer without them has None."""
    async with running_peer() as (peer, target):
        peer.script.completed = generated(
            attention=inference.AttentionUsage(policy="hybrid", kv_bytes=1 << 40, seen_share=0.25)
        )
        _, answer = await caller.ask(target)
        peer.script.completed = generated()
        _, silent = await caller.ask(target)
    assert answer.completed.attention == AttentionUsage(
        policy="hybrid", kv_bytes=1 << 40, seen_share=0.25
    )
    assert silent.completed.attention is None


async def test_both_clients_pass_method_and_options_on() -> None:
    """ask, summarize and prompt of either client reach the server alike."""
    options = Generation(max_tokens=3)

    def blocking(target: str) -> None:
        with Client(target) as client:
            for stream in (
                client.ask([], "?", method="generative", generation=options),
                client.summarize([], method="generative", generation=options),
                client.prompt([], "?", method="generative", generation=options),
            ):
                with stream:
                    stream.result()

    async with running_peer() as (peer, target), AsyncClient(target) as client:
        for stream in (
            client.ask([], "?", method="generative", generation=options),
            client.summarize([], method="generative", generation=options),
            client.prompt([], "?", method="generative", generation=options),
        ):
            async with stream:
                await stream.result()
        await asyncio.to_thread(blocking, target)
        kinds = [task.WhichOneof("kind") for task in peer.tasks]
        assert kinds == ["ask", "summarize", "prompt"] * 2
        assert {task.method for task in peer.tasks} == {inference.METHOD_GENERATIVE}
        assert {task.generation.max_tokens for task in peer.tasks} == {3}


@BOTH
@pytest.mark.parametrize("place", range(len(ANSWER) + 1))
async def test_a_generated_answer_that_breaks_is_continued_without_repeating(
    caller: Caller, place: int
) -> None:
    """Wherever the stream breaks, reasoning, text and quotations are delivered once."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER, RECUT, ANSWER])
        peer.script.answer_failures = deque([(place, PlainCut()), (place, PlainCut())])
        events, answer = await caller.ask(target)
        assert told(events, TextDelta) == answer.text == "It says “yes” and “perhaps”."
        assert told(events, Reasoning) == answer.reasoning == "Let me see. "
        assert (len(answer.citations), len(answer.unverified)) == (1, 1)
        assert peer.calls == ["Generate"] * 3


@BOTH
async def test_a_call_keeps_its_seed_and_the_next_call_has_another(caller: Caller) -> None:
    """What is repeated after a break can be the same answer; another call is free."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER])
        peer.script.answer_failures = deque([(3, PlainCut())])
        await caller.ask(target)
        first, again = (task.generation.seed for task in peer.tasks)
        assert first == again
        peer.script.chunk_failures = deque([(5, PlainCut())])
        await caller.analyze(target, b"some text", Ask("Why?"))
        second, resumed = (task.generation.seed for task in peer.tasks[2:])
        assert second == resumed != first


@BOTH
@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([reasoning("Let us ")], "the reasoning changed after 0 characters"),
        ([reasoning("Let me see. "), delta("It said")], "the answer changed after 0 characters"),
        (RECUT[:3], "shorter"),
    ],
)
async def test_words_that_differ_the_second_time_are_an_error(
    caller: Caller, second: list[dict[str, Any]], words: str
) -> None:
    """Two answers are never mixed, although sampling is the same only up to rounding."""
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER, second])
        peer.script.answer_failures = deque([(len(ANSWER), PlainCut())])
        with pytest.raises(AnswerChanged, match=words):
            await caller.ask(target)
