"""Uploads and answers across broken connections, on real sockets, with both clients."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

import pytest

from longspan.client import AnswerChanged, Ask, Citation, SourceSpent, TextDelta
from longspan.server import errors
from tests.client.callers import Caller
from tests.client.peer import PlainCut, citation, delta, running_peer
from tests.client.proxy import cutting_proxy

BOTH = pytest.mark.parametrize("caller", Caller)
DOCUMENT = b"".join(b"%09d\n" % number for number in range(150_000))


@BOTH
@pytest.mark.parametrize("seed", range(3))
async def test_an_upload_cut_at_random_bytes_arrives_whole_and_mostly_once(
    caller: Caller, seed: int
) -> None:
    randomness = random.Random(seed)
    cuts = [randomness.randrange(1_000, 350_000) for _ in range(4)]
    async with running_peer() as (peer, target), cutting_proxy(target, cuts) as (proxy, through):
        document = await caller.upload(through, DOCUMENT)
        assert peer.documents[document.document_id][1] == DOCUMENT
        assert proxy.connections == len(cuts) + 1
        assert peer.received_bytes == len(DOCUMENT)


@BOTH
async def test_an_iterator_is_resumed_from_the_bytes_still_held(caller: Caller) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(DOCUMENT), 70_001):
            yield DOCUMENT[start : start + 70_001]

    async with running_peer() as (peer, target), cutting_proxy(target, [300_000]) as (_, through):
        document = await caller.upload(through, pieces())
        assert peer.documents[document.document_id][1] == DOCUMENT


@BOTH
async def test_a_commit_whose_answer_was_lost_is_confirmed_by_resuming(caller: Caller) -> None:
    async with running_peer() as (peer, target):
        peer.script.stored_failures = deque([PlainCut()])
        document = await caller.upload(target, DOCUMENT)
        assert document.size_bytes == len(DOCUMENT)
        assert peer.received_bytes == len(DOCUMENT)
        assert [bool(header.upload_id) for header in peer.headers] == [False, True]


@BOTH
async def test_an_upload_that_the_server_forgot_is_sent_again(caller: Caller) -> None:
    async with running_peer() as (peer, target):
        peer.script.stored_failures = deque([PlainCut(), errors.UploadMissing("gone")])
        document = await caller.upload(target, DOCUMENT)
        assert document.size_bytes == len(DOCUMENT)
        assert [bool(header.upload_id) for header in peer.headers] == [False, True, False]


@BOTH
async def test_a_forgotten_upload_of_an_iterator_cannot_be_sent_again(caller: Caller) -> None:
    async with running_peer() as (peer, target):
        peer.script.stored_failures = deque([PlainCut(), errors.UploadMissing("gone")])
        with pytest.raises(SourceSpent, match="iterator"):
            await caller.upload(target, iter([DOCUMENT]))


@BOTH
@pytest.mark.parametrize(
    "error", [errors.UploadBusy("busy"), errors.QueueFull("full", retry_after_s=0.02)]
)
async def test_a_busy_server_is_asked_again(caller: Caller, error: Exception) -> None:
    async with running_peer() as (peer, target):
        peer.script.failures = deque([error, error])
        await caller.upload(target, b"text")
        assert len(peer.calls) == 3


ANSWER = [delta("One. "), citation(1, "one"), delta("Two. "), citation(2, "two"), delta("Three.")]
RECUT = [delta("On"), delta("e. Tw"), citation(1, "one"), delta("o. Three."), citation(2, "two")]


@BOTH
@pytest.mark.parametrize("place", range(6))
async def test_an_answer_that_breaks_is_continued_without_repeating(
    caller: Caller, place: int
) -> None:
    async with running_peer() as (peer, target):
        peer.script.answers = deque([ANSWER, RECUT, ANSWER])
        peer.script.answer_failures = deque([(place, PlainCut()), (place, PlainCut())])
        events, answer = await caller.ask(target)
        assert answer.text == "One. Two. Three."
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == answer.text
        assert [e.index for e in events if isinstance(e, Citation)] == [1, 2]
        assert peer.calls == ["Generate"] * 3


@BOTH
async def test_an_answer_that_changes_after_a_break_is_an_error(caller: Caller) -> None:
    async with running_peer() as (peer, target):
        peer.script.answers = deque([[delta("Yes.")], [delta("No.")]])
        peer.script.answer_failures = deque([(1, PlainCut())])
        with pytest.raises(AnswerChanged):
            await caller.ask(target)


@BOTH
async def test_analyze_resumes_before_and_after_text_was_delivered(caller: Caller) -> None:
    async with running_peer() as (peer, target), cutting_proxy(target, [400_000]) as (_, through):
        peer.script.answers = deque([ANSWER])
        peer.script.answer_failures = deque([(0, PlainCut()), (2, PlainCut())])
        events, answer = await caller.analyze(through, DOCUMENT, Ask("What?", max_citations=2))
        assert answer.text == "One. Two. Three."
        assert [e.index for e in events if isinstance(e, Citation)] == [1, 2]
        assert peer.received_bytes == len(DOCUMENT)
        assert peer.calls == ["Analyze"] * 4
        assert {task.ask.question for task in peer.tasks} == {"What?"}
