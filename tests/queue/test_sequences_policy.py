"""The pure parts of sequence dispatch: prompts, output, homes, placement, paragraphs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import GenerationFailed, PromptTooLong
from longspan.server.pool.model_info import ModelInfo
from longspan.server.queue.fair_queue import FairQueue, QueueLimits
from longspan.server.queue.homes import Homes, Pages
from longspan.server.queue.job import Job, JobId, Subject
from longspan.server.queue.output import AttentionUsage, Finish, FinishReason, Output
from longspan.server.queue.placement import next_placement
from longspan.server.queue.prompt import Prompt
from longspan.server.queue.sequence_wire import append_command, end_of, open_command
from longspan.server.queue.window import Window
from longspan.server.tasks.paragraphs import paragraph
from longspan.server.text.spans import Span
from tests.pool.story_worker import numbers, wire
from tests.queue.jobs import job

pieces = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=3000), max_size=6)


@given(pieces, pieces, st.integers(2, 8000))
def test_a_prompt_is_its_pieces_or_too_long(
    documents: list[list[int]], seal: list[list[int]], limit: int
) -> None:
    """However it grows, every part reads as appended; the first piece too many is refused."""
    prompt, kept = Prompt(limit), list[int]()
    last = [token for piece in seal for token in piece]
    for piece in documents:
        if len(kept) + len(piece) >= limit:
            with pytest.raises(PromptTooLong):
                prompt.append(np.array(piece, np.uint32))
            break
        prompt.append(np.array(piece, np.uint32))
        kept += piece
    if len(kept) + len(last) < limit:
        prompt.seal(np.array(last, np.uint32))
        assert prompt.task_start == len(kept)
        kept += last
    assert len(prompt) == len(kept)
    middle = len(kept) // 2
    assert prompt.part(0, middle) + prompt.part(middle, limit) == wire(*kept)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(-2, 2)), max_size=20))
def test_tokens_count_once_and_in_order(steps: list[tuple[int, int]]) -> None:
    """Only what follows what is here is taken: nothing twice, nothing with a gap before it."""
    output = Output()
    expected: list[int] = []
    for size, shift in steps:
        first = max(0, len(expected) + shift)
        ids = list(range(first, first + size))
        taken = output.add(first, wire(*ids), "x" * size, 1.0)
        assert taken == (first == len(expected))
        if taken:
            expected += ids
    assert numbers(output.ids) == expected == list(range(output.tokens))


async def test_text_before_a_bad_end_is_read_first_and_the_first_end_counts() -> None:
    """A reader gets what came before the error, then the error; a later end changes nothing."""
    output = Output()
    reading = asyncio.create_task(output.read())
    await asyncio.sleep(0)
    output.add(0, wire(1), "a", 1.0)
    output.end(GenerationFailed("lost"))
    output.end(Finish(FinishReason.STOP, 0))
    assert not output.add(1, wire(2), "b", 2.0)
    assert await reading == "a"
    with pytest.raises(GenerationFailed):
        await output.read()
    with pytest.raises(GenerationFailed):
        await output.failed()


def test_homes_are_bounded_and_lost_with_their_worker() -> None:
    """What was used longest ago is forgotten; a dead worker is nobody's home."""
    homes: Homes[str] = Homes(capacity=2)
    a, b, c = (Pages(Subject(name), "full") for name in "abc")
    homes.settle(a, "x")
    homes.settle(b, "y")
    assert homes.of(a) == "x"
    homes.settle(c, "y")
    assert (homes.of(b), homes.of(a)) == (None, "x")
    homes.lose("y")
    assert (homes.of(c), len(homes)) == (None, 1)


def test_a_document_has_a_home_under_each_policy() -> None:
    """Policies share no pages: what one has read helps the other nothing."""
    homes: Homes[str] = Homes()
    homes.settle(Pages(Subject("a"), "full"), "x")
    assert homes.of(Pages(Subject("a"), "hybrid")) is None
    homes.settle(Pages(Subject("a"), "hybrid"), "y")
    assert homes.of(Pages(Subject("a"), "full")) == "x"


def ready_with(**contexts: int) -> pb.Ready:
    """What a decoder with these policies says."""
    policies = [
        pb.AttentionPolicy(name=name, max_tokens=tokens) for name, tokens in contexts.items()
    ]
    return pb.Ready(max_tokens=100, kv_tokens=100, attention=policies)


@pytest.mark.parametrize(
    ("policy", "chosen", "context"),
    [
        (None, "full", 100),
        ("full", "full", 100),
        ("hybrid", "hybrid", 100),
        ("window", "window", 900),
    ],
)
def test_a_policy_that_drops_pages_reads_as_far_as_positions_go(
    policy: str | None, chosen: str, context: int
) -> None:
    """The default is the worker's first; what keeps its pages is bounded by them."""
    model = ModelInfo.of(ready_with(full=100, window=900, hybrid=100))
    assert model.policy(policy) == chosen
    assert model.context(chosen) == context


def test_a_worker_that_names_no_policies_and_no_positions_has_its_context() -> None:
    """An encoder, or a decoder that says nothing of them."""
    model = ModelInfo.of(pb.Ready(max_tokens=100))
    assert (model.policy(None), model.context("window")) == ("", 100)


def test_no_worker_goes_on_for_another_that_knows_other_policies() -> None:
    """Their names and their default are the same in all workers of a model, not their memory."""
    model = ModelInfo.of(ready_with(full=100, window=900))
    assert model.answers_like(replace(model, device="cuda:1"))
    assert not model.answers_like(replace(model, attention=("window", "full")))
    assert model.answers_like(replace(model, contexts=(90, 900)))
    assert model.least(replace(model, contexts=(90, 900))).contexts == (90, 900)


def test_only_what_seals_tells_where_the_task_begins() -> None:
    """Open or Append, whichever is the last; 0 before, and where there is no task."""
    prompt = Prompt(100)
    prompt.append(np.arange(10, dtype=np.uint32))
    one, sampling = job(1), pb.Sampling()

    def opened(given: int) -> pb.Open:
        command = open_command(
            one,
            sampling,
            prompt,
            given=given,
            attention="hybrid",
            subject="doc_1",
            delivered=b"",
            now=0.0,
            trace={},
        )
        return command.open

    assert (opened(10).sealed, opened(10).task_start) == (False, 0)
    prompt.seal(np.arange(5, dtype=np.uint32))
    assert (opened(10).sealed, opened(10).task_start) == (False, 0)
    assert (opened(15).sealed, opened(15).task_start) == (True, 10)
    assert (opened(15).attention, opened(15).subject) == ("hybrid", "doc_1")
    middle = append_command(one, prompt, start=10, end=12).append
    assert (middle.seal, middle.task_start) == (False, 0)
    last = append_command(one, prompt, start=12, end=15).append
    assert (last.seal, last.task_start, numbers(last.tokens)) == (True, 10, [2, 3, 4])


def test_a_seal_without_tokens_is_no_task() -> None:
    """All of the prompt are documents: the wire says that with 0."""
    prompt = Prompt(100)
    prompt.append(np.arange(10, dtype=np.uint32))
    prompt.seal(np.array([], np.uint32))
    last = append_command(job(1), prompt, start=10, end=10).append
    assert (last.seal, last.task_start) == (True, 0)


def test_a_finish_has_figures_of_its_policy_where_the_worker_tells_them() -> None:
    """A worker that names no policy has none."""
    told = pb.Finished(attention="hybrid", kv_bytes=1 << 40, seen_share=0.25)
    end = end_of(pb.Event(finished=told), pb.Sampling())
    assert isinstance(end, Finish)
    assert end.attention == AttentionUsage(policy="hybrid", kv_bytes=1 << 40, seen_share=0.25)
    assert end_of(pb.Event(finished=pb.Finished()), pb.Sampling()) == Finish(FinishReason.STOP, 0)


def _home(one: Job) -> str | None:
    return {1: "x", 2: "y"}.get(one.job_id)


def _queue(*costs: int) -> FairQueue:
    queue = FairQueue(QueueLimits())
    for number, cost in enumerate(costs, start=1):
        queue.push(job(number, cost), 0.0)
    return queue


def test_a_sequence_goes_home_unless_home_is_full() -> None:
    """Home first, however busy; a full home is passed over for the least loaded worker."""
    windows = {"x": Window(1 << 40, 2, 1 << 30), "y": Window(1 << 40, 1, 1 << 30)}
    windows["x"].add(job(90, 50), alone=False)
    queue = _queue(10, 10, 10)
    assert next_placement(queue, windows, (), _home, 0.0) == ("x", (job(1, 10), False))
    windows["y"].add(job(91, 10), alone=False)
    assert next_placement(queue, windows, (), _home, 0.0) == ("x", (job(2, 10), False))
    windows["x"].add(job(92, 10), alone=False)
    assert next_placement(queue, windows, (), _home, 0.0) is None
    assert len(queue) == 1


def test_the_shortest_suspect_goes_first_and_closes_its_window_until_it_is_relieved() -> None:
    """On probation nothing joins; what ran there before runs on, and others go elsewhere."""
    windows = {"x": Window(1 << 40, 9, 1 << 30), "y": Window(1 << 40, 9, 1 << 30)}
    windows["x"].add(job(90, 5), alone=False)
    windows["y"].add(job(91, 500), alone=False)
    queue = _queue(10, 70, 30)
    suspects = [JobId(2), JobId(3)]
    found = next_placement(queue, windows, suspects, lambda _: None, 0.0)
    assert found == ("x", (job(3, 30), True))
    windows["x"].add(job(3, 30), alone=True)
    found = next_placement(queue, windows, suspects, lambda _: None, 0.0)
    assert found == ("y", (job(2, 70), True))
    windows["y"].add(job(2, 70), alone=True)
    assert next_placement(queue, windows, suspects, lambda _: None, 0.0) is None
    windows["y"].relieve(JobId(2))
    found = next_placement(queue, windows, suspects, lambda _: None, 0.0)
    assert found == ("y", (job(1, 10), False))


@given(
    st.lists(st.sampled_from(["ä word ", "字句。", "\n", "\n \n", "\n\n", "x" * 900]), max_size=40),
    st.data(),
)
def test_a_paragraph_holds_its_span_and_no_half_characters(
    parts: list[str], data: st.DataObject
) -> None:
    """The passage around a quotation is text, holds it, and reaches over no blank line."""
    text = "".join(parts)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    before, inside = text[:start].encode(), text[start:end].encode()
    content = text.encode()
    span = Span(len(before), len(before) + len(inside))
    found = paragraph(content, span)
    assert 0 <= found.start <= span.start <= span.end <= found.end <= len(content)
    outside = content[found.start : span.start] + b"|" + content[span.end : found.end]
    assert b"\n\n" not in outside
    assert content[found.start : found.end].decode() in text


def test_every_number_of_the_wire_protocol_has_a_finish_reason() -> None:
    """A reason that is added to the protocol must be given a meaning here."""
    assert len(pb.FinishReason.keys()) == len(FinishReason) + 1
