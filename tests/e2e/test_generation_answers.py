"""Generated answers through a real server, a real decoder and both clients."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from longspan.client import (
    Answer,
    Ask,
    AsyncAnswerStream,
    AsyncClient,
    Client,
    Completed,
    Event,
    FinishReason,
    Generation,
    Progress,
    Prompt,
    Reasoning,
    Stage,
    Summarize,
    TextDelta,
)
from longspan.client import Task as ClientTask
from longspan.server.tasks import task as asked
from tests.e2e.real_decoders import STORY, Reference, Written, answering, stories_folder
from tests.support.data import EXAMPLES
from tests.support.serving import Serving
from tests.worker.decoders import CHATML, R1, tiny_decoder
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_TOKENS = 48
GREEDY = Generation(max_tokens=MAX_TOKENS)
TASKS: list[tuple[ClientTask, asked.Task]] = [
    (Prompt("Then Tom came and", generation=GREEDY), asked.Prompt("Then Tom came and")),
    (Ask("What did Lily see?", generation=GREEDY), asked.Ask("What did Lily see?")),
    (Summarize(2, generation=GREEDY), asked.Summarize(2)),
]
NAMES = ["prompt", "ask", "summarize"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with a decoder that writes stories, and the embedded encoder beside it."""
    skip_without_embedded()
    folder = tmp_path_factory.mktemp("stories")
    async with answering(folder, stories_folder(), encoder="embedded") as serving:
        yield serving


@pytest.fixture(scope="module")
def reference() -> Reference:
    """The same model in transformers."""
    return Reference(stories_folder())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chatty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A random decoder with a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    model = tiny_decoder("qwen2", folder / "model", chat_template=CHATML)
    async with answering(folder / "data", model) as serving:
        yield serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thinker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A random decoder whose template opens the reasoning, as DeepSeek-R1's does."""
    folder = tmp_path_factory.mktemp("thinker")
    model = tiny_decoder("qwen3", folder / "model", chat_template=R1)
    async with answering(folder / "data", model) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def client(stories: Serving) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stories.target) as client:
        yield client


async def _heard(stream: AsyncAnswerStream) -> tuple[list[Event], Answer]:
    """All events, of which Completed must be the last and only one."""
    async with stream:
        events = [event async for event in stream]
        answer = await stream.result()
    assert [n for n, e in enumerate(events) if isinstance(e, Completed)] == [len(events) - 1]
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == answer.text
    return events, answer


def _check(answer: Answer, expected: Written) -> None:
    """Text, finish, accounts and timings of an answer on the story."""
    completed, usage = answer.completed, answer.completed.usage
    assert answer.text == expected.text
    assert (answer.reasoning, answer.citations) == ("", ())
    assert usage.document_tokens == expected.document_tokens
    assert usage.task_tokens == expected.task_tokens
    assert usage.output_tokens == expected.output_tokens
    assert usage.retries == 0
    ended = FinishReason.LENGTH if usage.output_tokens == MAX_TOKENS else FinishReason.STOP
    assert completed.finish_reason is ended
    assert completed.model == stories_folder().name
    timings = completed.timings
    assert min(timings.first_delta_s, timings.total_s, timings.per_token_s, timings.upload_s) >= 0
    assert timings.first_delta_s > 0
    assert timings.per_token_s > 0
    assert timings.total_s > timings.per_token_s * (usage.output_tokens - 1)


@pytest.mark.parametrize(("task", "plain"), TASKS, ids=NAMES)
async def test_a_greedy_answer_is_the_one_that_transformers_generates(
    client: AsyncClient, reference: Reference, task: ClientTask, plain: asked.Task
) -> None:
    """Analyze and Generate say what ``generate`` says behind the same prompt."""
    expected = await asyncio.to_thread(reference.greedy, plain, STORY, MAX_TOKENS)
    events, uploaded = await _heard(client.analyze(STORY.encode(), task))
    _check(uploaded, expected)
    assert any(isinstance(e, Progress) and e.stage is Stage.ANSWERING for e in events)
    [document] = uploaded.completed.documents
    assert document.tokens == expected.document_tokens
    match task:
        case Prompt(text):
            stream = client.prompt(document, text, generation=GREEDY)
        case Ask(question):
            stream = client.ask(document, question, generation=GREEDY)
        case Summarize(sentences):
            stream = client.summarize(document, max_sentences=sentences, generation=GREEDY)
    _check((await _heard(stream))[1], expected)


async def test_the_blocking_client_hears_the_same(stories: Serving, reference: Reference) -> None:
    """Both kinds of call of the blocking client, with the same result."""

    def talk() -> list[Answer]:
        with Client(stories.target) as client:
            task, _ = TASKS[0]
            with client.analyze(STORY.encode(), task) as stream:
                uploaded = stream.result()
            document = uploaded.completed.documents[0]
            assert isinstance(task, Prompt)
            with client.prompt(document, task.text, generation=GREEDY) as again:
                events = list(again)
                assert [isinstance(e, Completed) for e in events].index(True) == len(events) - 1
                return [uploaded, again.result()]

    expected = await asyncio.to_thread(reference.greedy, TASKS[0][1], STORY, MAX_TOKENS)
    for answer in await asyncio.to_thread(talk):
        _check(answer, expected)


async def test_many_at_once_say_what_each_says_alone(
    client: AsyncClient, reference: Reference
) -> None:
    """Answers of one busy batch equal those of single runs in transformers."""
    texts = [f"{STORY}{name} was there too. " for name in ("Tom", "Ben", "Sue", "Max", "Mia")]
    plain = asked.Prompt("They all")
    task = Prompt("They all", generation=GREEDY)

    async def one(text: str) -> Answer:
        return (await _heard(client.analyze(text.encode(), task)))[1]

    answers = await asyncio.gather(*(one(text) for text in texts * 2))
    for text, answer in zip(texts * 2, answers, strict=True):
        _check(answer, await asyncio.to_thread(reference.greedy, plain, text, MAX_TOKENS))


async def test_a_seed_gives_the_same_answer_and_another_seed_another(client: AsyncClient) -> None:
    """Sampling is the request's own: seed, prompt and model decide."""
    texts = []
    for seed in (5, 5, 6):
        generation = Generation(max_tokens=MAX_TOKENS, temperature=1.0, top_p=0.95, seed=seed)
        task = Prompt("Then", generation=generation)
        texts.append((await _heard(client.analyze(STORY.encode(), task)))[1].text)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_a_stop_text_ends_the_answer_before_itself(
    client: AsyncClient, reference: Reference
) -> None:
    """What matched is not part of the answer, though it is cut over several tokens."""
    expected = await asyncio.to_thread(reference.greedy, TASKS[0][1], STORY, MAX_TOKENS)
    words = expected.text.split()
    stop = f"{words[4]} {words[5]}"
    task = Prompt("Then Tom came and", generation=Generation(max_tokens=MAX_TOKENS, stop=stop))
    _, answer = await _heard(client.analyze(STORY.encode(), task))
    assert answer.text == expected.text.partition(stop)[0]
    assert answer.completed.finish_reason is FinishReason.STOP
    assert answer.completed.usage.output_tokens < MAX_TOKENS


async def test_an_answer_of_a_schema_is_json_of_that_schema(client: AsyncClient) -> None:
    """A schema given as a mapping binds a model that knows nothing of JSON."""
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Lily", "Tom"]}, "happy": {"type": "boolean"}},
        "required": ["name", "happy"],
        "additionalProperties": False,
    }
    generation = Generation(max_tokens=200, temperature=0.7, seed=1, json_schema=schema)
    _, answer = await _heard(client.analyze(STORY.encode(), Prompt("Who?", generation=generation)))
    value = json.loads(answer.text)
    assert value["name"] in ("Lily", "Tom")
    assert isinstance(value["happy"], bool)
    assert answer.completed.finish_reason is FinishReason.STOP


async def test_the_encoder_still_picks_sentences_beside_a_decoder(client: AsyncClient) -> None:
    """The method decides who answers; the model's name tells who did."""
    question = "How quickly must a security incident be notified?"
    async with client.analyze(
        EXAMPLES / "services-agreement.md", Ask(question, method="extractive")
    ) as stream:
        answer = await stream.result()
    assert answer.citations
    assert answer.completed.model != stories_folder().name
    assert answer.completed.usage.output_tokens == 0
    assert answer.completed.documents[0].passages > 0


QUOTING = (
    "Preamble — “Grüße” aus Zürich.\n\n"
    "The Supplier shall notify the Customer\nwithin 24 hours of any incident.\n\n"
    "Neither party may assign this agreement."
)


async def test_quotations_become_citations_or_are_named_unverified(chatty: Serving) -> None:
    """A citation's span holds the document's own bytes; what stands nowhere is marked."""
    said = (
        'They must "notify the Customer within 24 hours" and “pay nothing at all”; '
        "also “Neither party may assign”."
    )
    data = QUOTING.encode()
    task = Ask("When?", generation=Generation(max_tokens=400, regex=re.escape(said)))
    async with AsyncClient(chatty.target) as client:
        events, answer = await _heard(client.analyze(data, task))
        document = answer.completed.documents[0]
        assert answer.text == said
        quoted = [citation.quote for citation in answer.citations]
        assert quoted == ["notify the Customer\nwithin 24 hours", "Neither party may assign"]
        for index, citation in enumerate(answer.citations, start=1):
            assert citation.index == index
            assert citation.document_id == document.document_id
            assert data[citation.span.start : citation.span.end] == citation.quote.encode()
            assert await client.read(document, citation.span) == citation.quote.encode()
            passage = data[citation.passage.start : citation.passage.end].decode()
            assert citation.quote in passage
        assert [one.quote for one in answer.unverified] == ["pay nothing at all"]
        assert isinstance(events[-1], Completed)


async def test_reasoning_that_the_model_opens_is_told_apart(chatty: Serving) -> None:
    """A block at the beginning of the text is reasoning; the answer begins behind it."""
    form = r"<think>\n[a-z ]{5,20}\n</think>\n\n[A-Z]{3,8}\."
    task = Prompt("Think.", generation=Generation(max_tokens=200, regex=form))
    async with AsyncClient(chatty.target) as client:
        events, answer = await _heard(client.analyze(STORY.encode(), task))
    assert re.fullmatch(r"[A-Z]{3,8}\.", answer.text)
    assert re.fullmatch(r"[a-z ]{0,20}\n?", answer.reasoning)
    assert answer.reasoning.strip()
    kinds = [type(e) for e in events if isinstance(e, TextDelta | Reasoning)]
    assert kinds == sorted(kinds, key=lambda kind: kind is TextDelta)


async def test_a_form_binds_what_follows_the_reasoning(thinker: Serving) -> None:
    """Where the template opens the reasoning, it is free, and the answer behind it is not."""
    # So hot that every token is as likely as any other: one of them closes the reasoning.
    generation = Generation(max_tokens=3500, temperature=100.0, seed=3, regex=r"[a-z]{4}: [0-9]{3}")
    async with AsyncClient(thinker.target) as client:
        _, answer = await _heard(client.analyze(b"A text.", Ask("Why?", generation=generation)))
    assert re.fullmatch(r"[a-z]{4}: [0-9]{3}", answer.text)
    assert answer.reasoning
    assert "</think>" not in answer.reasoning
    assert answer.completed.finish_reason is FinishReason.STOP
    assert answer.completed.usage.output_tokens > 8


async def test_stops_end_the_answer_and_not_the_reasoning(thinker: Serving) -> None:
    """The same answer, up to a character that the reasoning is full of."""
    form = r"[a-z]{4}: [0-9]{3}"
    generation = Generation(max_tokens=3500, temperature=100.0, seed=3, regex=form, stop=":")
    async with AsyncClient(thinker.target) as client:
        _, answer = await _heard(client.analyze(b"A text.", Ask("Why?", generation=generation)))
    assert re.fullmatch(r"[a-z]{4}", answer.text)
    assert ":" in answer.reasoning
    assert answer.completed.finish_reason is FinishReason.STOP


async def test_reasoning_without_an_end_is_no_answer(thinker: Serving) -> None:
    """A model cut while it thinks has answered nothing; its reasoning is told all the same."""
    task = Prompt("Think.", generation=Generation(max_tokens=20))
    async with AsyncClient(thinker.target) as client:
        _, answer = await _heard(client.analyze(b"A text.", task))
    assert answer.text == ""
    assert answer.reasoning
    assert answer.completed.finish_reason is FinishReason.LENGTH


async def test_the_second_question_reads_the_document_from_its_pages(chatty: Serving) -> None:
    """Whole pages of prefix and document are cached, by what the text is, not by who sent it."""
    data = (EXAMPLES / "services-agreement.md").read_bytes()[:3000]
    async with AsyncClient(chatty.target) as client:
        _, first = await _heard(client.analyze(data, Ask("Who?", generation=GREEDY)))
        document = first.completed.documents[0]
        _, second = await _heard(client.ask(document, "When is it?", generation=GREEDY))
        _, third = await _heard(client.analyze(data, Ask("Who?", generation=GREEDY)))
    assert first.completed.usage.document_tokens > 512
    assert first.completed.usage.cached_tokens == 0
    for answer in (second, third):
        usage = answer.completed.usage
        assert usage.document_tokens == first.completed.usage.document_tokens
        total = usage.document_tokens + usage.task_tokens
        # What was computed before the rest of its page had come is not counted.
        assert usage.document_tokens // 2 < usage.cached_tokens < total
    assert third.text == first.text
