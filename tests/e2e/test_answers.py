"""Answers of the embedded model: right, quoted to the byte, the same however they are asked."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from longspan.server.identity import DocumentId
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.raw_calls import (
    Answer,
    analyze,
    analyze_messages,
    ask,
    collect,
    generate,
    read,
    store,
    summarize,
    whole,
)
from tests.support.data import EXAMPLES
from tests.support.serving import Serving, serving
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTIONS = json.loads((EXAMPLES / "questions.json").read_text("utf-8"))
AGREEMENT = "services-agreement.md"
QUESTION = "How quickly does the vendor have to tell us about a data breach?"
TICK_LATE_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    skip_without_embedded()
    async with serving(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(server: Serving) -> dict[str, str]:
    """Ids of the example documents by file name."""
    names = sorted({item["document"] for group in QUESTIONS.values() for item in group})
    return {name: (await store(server, text_of(name))).document_id for name in names}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_left_behind(server: Serving) -> AsyncIterator[None]:
    yield
    await server.settled()


def text_of(name: str) -> bytes:
    """An example document."""
    return (EXAMPLES / name).read_bytes()


def comparable(answer: Answer) -> tuple[str, list[bytes], bool]:
    """What must not depend on how the document came."""
    citations = [citation.SerializeToString() for citation in answer.citations]
    return answer.text, citations, answer.completed.finish_reason == pb.FINISH_REASON_STOP


def check_citations(answer: Answer, contents: dict[str, bytes]) -> None:
    """Every quote is the document's own bytes, numbered from 1, and stands in the text."""
    lines = answer.text.splitlines()
    assert [citation.index for citation in answer.citations] == list(range(1, len(lines) + 1))
    for citation, line in zip(answer.citations, lines, strict=True):
        content = contents[citation.document_id]
        quote = citation.quote.encode()
        assert quote == content[citation.span.start : citation.span.end]
        assert citation.passage.start <= citation.span.start
        assert citation.span.end <= citation.passage.end
        assert line == f"“{' '.join(citation.quote.split())}” [{citation.index}]"


async def right_first(server: Serving, library: dict[str, str], group: str) -> int:
    """How many questions of a group have the known answer in the first citation."""
    right = 0
    for item in QUESTIONS[group]:
        content, document_id = text_of(item["document"]), library[item["document"]]
        answer = await generate(server, [document_id], ask(item["question"]))
        check_citations(answer, {document_id: content})
        first, start = answer.citations[0], content.index(item["quote"].encode())
        end = start + len(item["quote"].encode())
        right += first.passage.start < end and start < first.passage.end
    return right


@pytest.mark.parametrize(("group", "least"), [("questions", 16), ("zh", 4)])
async def test_the_known_answer_is_cited_first(
    server: Serving, library: dict[str, str], group: str, least: int
) -> None:
    right = await right_first(server, library, group)
    print(f"{group}: {right} of {len(QUESTIONS[group])} right in the first citation")
    assert right >= least


async def test_analyze_and_generate_give_the_same_answer(
    server: Serving, library: dict[str, str]
) -> None:
    messages = analyze_messages(whole(text_of(AGREEMENT)), ask(QUESTION))
    events, refusal = await analyze(server, messages)
    assert refusal is None
    generated = await generate(server, [library[AGREEMENT]], ask(QUESTION))
    assert comparable(Answer(events)) == comparable(generated)
    assert len(generated.citations) == 3


async def paced(messages: list[Any], wait_s: float) -> AsyncIterator[Any]:
    """Messages with a pause before each."""
    for message in messages:
        await asyncio.sleep(wait_s)
        yield message


@pytest.mark.parametrize(("seed", "wait_s"), [(1, 0.0), (2, 0.0), (3, 0.02), (4, 0.0)])
async def test_any_chunking_of_the_upload_gives_the_same_answer(
    server: Serving, library: dict[str, str], seed: int, wait_s: float
) -> None:
    content, chance = text_of(AGREEMENT), random.Random(seed)
    expected = await generate(server, [library[AGREEMENT]], ask(QUESTION))
    await delete(server, library[AGREEMENT])
    cuts, sizes = [0], [1, 2, 700, 4096, 65536]
    while cuts[-1] < len(content):
        cuts.append(cuts[-1] + chance.randint(1, chance.choice(sizes)))
    messages = analyze_messages(whole(content, cuts[1:-1]), ask(QUESTION))
    events, refusal = await collect(server.inference.Analyze(paced(messages, wait_s)))
    assert refusal is None
    answer = Answer(events)
    assert comparable(answer) == comparable(expected)
    assert answer.completed.usage.cached_tokens == 0


async def delete(server: Serving, document_id: str) -> None:
    """Remove a document, so that its next upload is indexed anew."""
    from longspan.v1 import document_service_pb2

    request = document_service_pb2.DeleteDocumentRequest(document_id=document_id)
    await server.documents.DeleteDocument(request)


@pytest.mark.parametrize("sentences", [1, 5, 50])
async def test_a_summary_is_distinct_sentences_in_document_order(
    server: Serving, library: dict[str, str], sentences: int
) -> None:
    name = "annual-report.md"
    answer = await generate(server, [library[name]], summarize(sentences))
    check_citations(answer, {library[name]: text_of(name)})
    starts = [citation.span.start for citation in answer.citations]
    assert len(starts) == sentences
    assert starts == sorted(set(starts))


async def test_two_documents_are_answered_together(
    server: Serving, library: dict[str, str]
) -> None:
    names = [AGREEMENT, "annual-report.md"]
    contents = {library[name]: text_of(name) for name in names}
    answer = await generate(server, list(contents), ask(QUESTION, max_citations=20))
    check_citations(answer, contents)
    assert {citation.document_id for citation in answer.citations} == set(contents)
    assert [document.document_id for document in answer.completed.documents] == list(contents)
    only = await generate(server, [library[AGREEMENT]], ask(QUESTION))
    assert answer.citations[0].span == only.citations[0].span
    check_monotone(answer)
    summary = await generate(server, list(contents), summarize(6))
    check_citations(summary, contents)


def check_monotone(answer: Answer) -> None:
    """No counter and no stage of the progress ever falls."""
    counters = [
        (
            progress.stage,
            progress.bytes_received,
            progress.bytes_total,
            progress.tokens,
            progress.passages,
            progress.passages_embedded,
            progress.passages_cached,
        )
        for progress in answer.progress
    ]
    for before, after in itertools.pairwise(counters):
        assert all(one <= other for one, other in zip(before, after, strict=True)), counters
    last = answer.progress[-1]
    assert last.passages_embedded == last.passages > 0
    assert last.bytes_received == last.bytes_total > 0
    assert last.tokens == answer.completed.usage.document_tokens


async def test_progress_comes_every_second_and_never_falls(server: Serving) -> None:
    content = text_of("annual-report.md") + b"\nA line that no other test has.\n"
    messages = analyze_messages(
        whole(content, range(4096, len(content), 4096), declared_bytes=len(content)),
        ask("What is the revenue?"),
    )
    loop = asyncio.get_running_loop()
    times, events = [loop.time()], []
    async for event in server.inference.Analyze(paced(messages, 0.15)):
        events.append(event)
        times.append(loop.time())
    assert times[-1] - times[0] > 2
    told = [at for at, event in zip(times[1:], events, strict=True) if event.HasField("progress")]
    gaps = [after - before for before, after in zip([times[0], *told], told, strict=False)]
    assert max(gaps) < TICK_LATE_S
    answer = Answer(events)
    check_monotone(answer)
    received = [progress.bytes_received for progress in answer.progress]
    embedded = [progress.passages_embedded for progress in answer.progress]
    assert any(0 < bytes_received < len(content) for bytes_received in received)
    assert any(0 < count < embedded[-1] for count in embedded), "nothing ran behind the upload"


async def test_progress_of_documents_indexed_by_generate_never_falls(
    server: Serving, library: dict[str, str]
) -> None:
    indexes = server.server.application.indexes
    assert indexes is not None
    for path in index_files(server.config.data_dir):
        path.unlink()
    ids = [library[name] for name in (AGREEMENT, "services-agreement.zh.md")]
    for document_id in library.values():
        indexes.forget(DocumentId(document_id))
    answer = await generate(server, ids, ask(QUESTION))
    check_monotone(answer)
    assert answer.completed.usage.cached_tokens == 0


def index_files(data_dir: Path) -> list[Path]:
    """All stored indexes."""
    return list(data_dir.rglob("*.index"))


async def test_a_second_question_embeds_no_passage_again(
    server: Serving, library: dict[str, str]
) -> None:
    usage = (await generate(server, [library[AGREEMENT]], ask(QUESTION))).completed.usage
    assert usage.cached_tokens == usage.document_tokens > 0
    assert 0 < usage.task_tokens < usage.document_tokens
    assert usage.retries == 0


async def test_the_terminal_event_tells_times_and_model(
    server: Serving, library: dict[str, str]
) -> None:
    completed = (await generate(server, [library[AGREEMENT]], ask(QUESTION))).completed
    timings = completed.timings
    assert completed.model == "all-MiniLM-L6-v2"
    assert not completed.HasField("attention")
    assert timings.upload.ToMicroseconds() == 0
    assert 0 < timings.first_delta.ToMicroseconds() <= timings.total.ToMicroseconds()


async def test_a_summary_of_the_longest_kind_fits_into_jobs(server: Serving) -> None:
    content = " ".join(f"Item {number} is red." for number in range(600)).encode()
    document = await store(server, content)
    answer = await generate(server, [document.document_id], summarize(50))
    check_citations(answer, {document.document_id: content})
    assert len(answer.citations) == 50


async def test_a_document_without_an_answer_says_so(server: Serving) -> None:
    document = await store(server, b"The meadow was quiet and the grass was tall.")
    answer = await generate(server, [document.document_id], ask("zxqv 9931 kubernetes ingress"))
    completed = answer.completed
    assert completed.finish_reason == pb.FINISH_REASON_NO_ANSWER
    assert answer.text == ""
    assert completed.usage.document_tokens > 0


STRANGE = {
    "control tokens": b"Terms apply. <|im_end|> <|endoftext|> [SEP] [CLS] The fee is 3 euros.",
    "nul": b"The fee\x00 is 3 euros.\x00\x00 Nothing more.",
    "byte order mark": b"\xef\xbb\xbfThe fee is 3 euros. It is due on Monday.",
    "one character": b"x",
    "crlf": b"# Fees\r\n\r\nThe fee is 3 euros.\r\nIt is due.\r\n",
    "one line": b"the fee is 3 euros and " * 800,
    "no spaces": b"fee" * 6000,
    "emoji": "🦜👩‍👩‍👧".encode() * 300,
    "combining": ("e" + "\u0301" * 500).encode(),
    "right to left": "רסיס מים. הסכום הוא 3.".encode(),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_strange_documents_are_quoted_to_the_byte(server: Serving, name: str) -> None:
    content = STRANGE[name]
    document = await store(server, content)
    assert document.size_chars == len(content.decode())
    assert await read(server, document.document_id) == content
    for task in (summarize(3), ask("What is the fee?")):
        answer = await generate(server, [document.document_id], task)
        assert len(answer.text.splitlines()) == len(answer.citations)
        for citation in answer.citations:
            assert citation.quote.encode() == content[citation.span.start : citation.span.end]
    if name != "one character":
        assert (await generate(server, [document.document_id], summarize())).citations


@pytest.mark.parametrize("content", [b" \n\t\r\n ", "\u3000\u2028\u00a0".encode(), b"\n"])
async def test_a_document_of_white_space_holds_no_answer(server: Serving, content: bytes) -> None:
    for task in (summarize(), ask("why")):
        events, refusal = await analyze(server, analyze_messages(whole(content), task))
        assert refusal is None
        answer = Answer(events)
        assert answer.completed.finish_reason == pb.FINISH_REASON_NO_ANSWER
        assert (answer.text, answer.citations) == ("", [])
