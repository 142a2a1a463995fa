"""Flights, and callers that are told each word once."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import GenerationFailed
from longspan.server.results.delivery import Delivery
from longspan.server.results.first_level import MemoryLevel
from longspan.server.results.flight import TRANSITIONS, AnswerTooLarge, Event, Flight, State
from longspan.server.results.flights import Flights
from longspan.server.results.levels import Level
from longspan.server.results.results import Request, Results
from longspan.server.results.tiers import Tiers
from longspan.server.services.wire import Outgoing
from longspan.v1 import inference_service_pb2 as pb
from tests.results.records import OWNER, key_of, record

END = pb.Completed(model="m")


class Told:
    """A caller that keeps what it is told; with a gate it reads nothing until that is open."""

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.text = ""
        self.reasoning = ""
        self.citations: list[int] = []
        self._gate = gate

    async def send(self, **event: Any) -> None:
        if self._gate is not None:
            await self._gate.wait()
        for kind, message in event.items():
            match kind:
                case "delta":
                    self.text += message.text
                case "reasoning":
                    self.reasoning += message.text
                case "citation":
                    self.citations.append(message.index)

    @property
    def everything(self) -> tuple[object, ...]:
        return self.text, self.reasoning, self.citations


def _noticed() -> None:
    return


def _delta(text: str) -> pb.GenerateResponse:
    return pb.GenerateResponse(delta=pb.TextDelta(text=text))


# An answer: letters that are thought, letters that are said, and citations between them.
answers = st.lists(st.sampled_from(["delta", "reasoning", "citation"]), max_size=20)
cuts = st.lists(st.integers(1, 4), min_size=1, max_size=10)


def _cut(answer: list[str], sizes: list[int]) -> list[tuple[str, Any]]:
    """The same answer in pieces of these sizes, as long as their kind goes on."""
    letters = itertools.count(ord("a"))
    events: list[tuple[str, Any]] = []
    lengths = itertools.cycle(sizes)
    for kind, group in itertools.groupby(answer):
        count = len(list(group))
        if kind == "citation":
            events += [("citation", pb.Citation(index=next(letters))) for _ in range(count)]
            continue
        make = pb.TextDelta if kind == "delta" else pb.ReasoningDelta
        while count > 0:
            size = min(count, next(lengths))
            events.append((kind, make(text="".join(chr(next(letters)) for _ in range(size)))))
            count -= size
    return events


@given(answers, st.lists(st.tuples(cuts, st.integers(0, 20)), max_size=4), cuts)
def test_an_answer_that_begins_again_is_told_once(
    answer: list[str], broken: list[tuple[list[int], int]], last: list[int]
) -> None:
    """However it is cut, and wherever it ends before."""

    async def tell() -> tuple[Told, Told]:
        told, whole = Told(), Told()
        delivery = Delivery(told, _noticed)
        for sizes, length in broken:
            for kind, message in _cut(answer, sizes)[:length]:
                await delivery.send(**{kind: message})
            delivery.restart()
        for kind, message in _cut(answer, last):
            await delivery.send(**{kind: message})
            await whole.send(**{kind: message})
        return told, whole

    told, whole = asyncio.run(tell())
    assert told.everything == whole.everything


async def test_two_answers_are_never_mixed() -> None:
    """What comes again must begin with what was told."""
    for first, second in (("One two", "One three"), ("One", "one two")):
        told = Told()
        delivery = Delivery(told, _noticed)
        await delivery.send(delta=pb.TextDelta(text=first))
        delivery.restart()
        with pytest.raises(GenerationFailed):
            await delivery.send(delta=pb.TextDelta(text=second))
        assert told.text == first
    told = Told()
    delivery = Delivery(told, _noticed)
    await delivery.send(citation=pb.Citation(index=1, document_id="a", score=0.5))
    delivery.restart()
    await delivery.send(citation=pb.Citation(index=1, document_id="a", score=0.4999))
    delivery.restart()
    with pytest.raises(GenerationFailed):
        await delivery.send(citation=pb.Citation(index=1, document_id="b"))
    assert told.citations == [1]


async def test_an_answer_that_comes_out_shorter_is_not_the_one_that_was_told() -> None:
    """Its end would belong to another text."""
    flight = Flight(key_of(1), 0, 100)
    flight.say(_delta("One"))
    flight.complete(END, 0.0)
    delivery = Delivery(Told(), _noticed)
    await delivery.send(delta=pb.TextDelta(text="One two"))
    delivery.restart()
    with pytest.raises(GenerationFailed):
        await delivery.follow(flight)
    alone = Delivery(Told(), _noticed)
    await alone.send(citation=pb.Citation(index=1, document_id="a"))
    alone.restart()
    with pytest.raises(GenerationFailed):
        await alone.send(completed=END)


@given(st.lists(st.sampled_from(Event), max_size=6))
def test_a_flight_moves_as_its_table_says_and_not_otherwise(moves: list[Event]) -> None:
    async def fly() -> None:
        flight = Flight(key_of(1), 0, 10)
        state = State.OPEN
        for move in moves:
            allowed = (state, move) in TRANSITIONS
            try:
                match move:
                    case Event.SAID:
                        flight.say(pb.GenerateResponse())
                    case Event.OVERFLOWED:
                        flight.say(_delta("far too long for it"))
                    case Event.COMPLETED:
                        flight.complete(END, 0.0)
                    case Event.ABANDONED:
                        flight.abandon()
            except AnswerTooLarge:
                assert move is Event.OVERFLOWED
            except KeyError:
                assert not allowed
                continue
            state = TRANSITIONS.get((state, move), state)
            assert flight.state is state

    asyncio.run(fly())


async def test_whoever_comes_second_follows_until_the_flight_has_landed() -> None:
    flights = Flights(100)
    first, leads = flights.join(key_of(1), 0)
    assert leads
    assert flights.join(key_of(1), 0) == (first, False)
    assert flights.join(key_of(2), 0)[1]
    first.complete(END, 0.0)
    assert flights.join(key_of(1), 0) == (first, False)
    flights.land(first)
    second, leads = flights.join(key_of(1), 0)
    assert leads
    second.abandon()
    third, leads = flights.join(key_of(1), 0)
    assert leads
    flights.land(second)
    assert flights.join(key_of(1), 0) == (third, False)
    assert flights.join(key_of(1), 1)[1], "another lane"
    assert not flights.show(flights.alone(key_of(1), 0))


async def _there() -> bool:
    return True


def _results() -> Results:
    return Results(Tiers(MemoryLevel(100_000, 60.0), None), 1000)


REQUEST = Request(key_of(7), OWNER, 0, _there)


async def test_a_leader_that_reads_nothing_holds_up_no_follower() -> None:
    results, gate = _results(), asyncio.Event()
    made = 0

    async def run(outbox: Outgoing) -> None:
        nonlocal made
        made += 1
        for word in ("One ", "two ", "three."):
            await outbox.send(delta=pb.TextDelta(text=word))
            await asyncio.sleep(0)
        await outbox.send(completed=END)

    def answer(told: Told) -> Any:
        return results.answer(REQUEST, Delivery(told, _noticed), told, run)

    stuck, follower = Told(gate), Told()
    leading = asyncio.create_task(answer(stuck))
    await asyncio.sleep(0)
    flight, level = await answer(follower)
    assert (follower.text, level, flight.completed) == ("One two three.", Level.FLIGHT, END)
    assert not leading.done()
    gate.set()
    assert (await leading)[1] is None
    assert (stuck.text, made) == ("One two three.", 1)
    await results.close()


async def test_a_record_that_is_found_is_told_like_one_that_is_made() -> None:
    level = MemoryLevel(100_000, 60.0)
    await level.put(record(7, "Found."), OWNER)
    results = Results(Tiers(level, None), 1000)

    async def run(outbox: Outgoing) -> None:
        raise AssertionError("it was found")

    told = Told()
    answer = await results.answer(REQUEST, Delivery(told, _noticed), told, run)
    assert answer is not None
    assert answer[1] is Level.MEMORY
    assert told.text == "Found."


async def test_an_answer_about_a_document_that_is_gone_is_not_kept() -> None:
    async def gone() -> bool:
        return False

    level = MemoryLevel(100_000, 60.0)
    results = Results(Tiers(level, None), 1000)
    flight = results.flight(REQUEST)
    flight.complete(END, 0.0)
    results.keep(flight, Request(key_of(7), OWNER, 0, gone))
    await results.kept()
    assert await level.get(key_of(7), OWNER) is None
    with pytest.raises(KeyError):
        flight.complete(END, 0.0)


@pytest.mark.parametrize(("tokens", "kept"), [(7, False), (8, True)])
async def test_an_answer_that_memory_ended_is_not_kept(tokens: int, kept: bool) -> None:
    """Another time there may be more of it; one that reached its own limit is whole."""
    level = MemoryLevel(100_000, 60.0)
    results = Results(Tiers(level, None), 1000)
    flight = results.flight(REQUEST)
    end = pb.Completed(finish_reason=pb.FINISH_REASON_LENGTH)
    end.usage.output_tokens = tokens
    flight.complete(end, 0.0)
    results.keep(flight, replace(REQUEST, max_tokens=8))
    await results.kept()
    assert (await level.get(key_of(7), OWNER) is not None) is kept
