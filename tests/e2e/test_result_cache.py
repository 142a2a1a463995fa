"""Equal requests are answered from the cache: what hits, what does not, and what is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from longspan.client import CacheLevel, Generation
from longspan.server.identity import Tenant
from longspan.server.results.levels import Level
from longspan.v1 import cache_service_pb2 as caches_pb
from longspan.v1 import cache_service_pb2_grpc
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.client.command import longspan
from tests.e2e.cached import (
    TEXT,
    caching,
    client_of,
    document,
    greedy,
    level,
    record_files,
    results_of,
    stats_of,
    told,
)
from tests.e2e.conversation import (
    analyze_messages,
    ask,
    reason,
    sending,
    summarize,
    tenant,
)
from tests.e2e.generation import hear, prompt
from tests.e2e.workers import quiet_log, serving_with
from tests.pool.harness import config
from tests.pool.stories import stories
from tests.support.data import EXAMPLES

SAID = "It thinks.\n</think>\n\nThe text says “The customer is told” and “nothing like this”."


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


async def test_a_repeated_request_is_told_all_that_the_first_one_was(tmp_path: Path) -> None:
    async with caching(tmp_path, "--say", SAID, thinks=True) as serving:
        handle = await document(serving)
        task = greedy(max_tokens=200)
        first, second = [await told(serving, handle, task) for _ in range(2)]
        assert (level(first), level(second)) == (None, "memory")
        assert first.end.HasField("cache")
        assert second.reasoning == first.reasoning != ""
        assert second.text == first.text
        assert second.citations == first.citations
        assert len(second.citations) == 1
        assert second.unverified == first.unverified == ["nothing like this"]
        assert second.end.usage.output_tokens == first.end.usage.output_tokens
        assert second.end.documents == first.end.documents
        assert second.end.finish_reason == first.end.finish_reason
        assert second.end.attention.policy == "full"
        assert second.end.attention.kv_bytes == 0
        assert second.end.cache.age.ToMilliseconds() >= 0
        assert stats_of(serving).hits == {Level.MEMORY: 1}
        assert stats_of(serving).misses == 1


async def test_kept_answers_are_told_and_cleared(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving:
        caches = cache_service_pb2_grpc.CacheServiceStub(serving.channel)
        handle = await document(serving)
        for _ in range(2):
            await told(serving, handle, greedy())
        await results_of(serving).kept()
        stats = (await caches.Stats(caches_pb.StatsRequest())).result_cache
        assert (dict(stats.hits), stats.misses, stats.stored) == ({"memory": 1}, 1, 1)
        assert stats.memory_bytes > 0
        assert (stats.disk_answers, stats.disk_breaker) == (1, caches_pb.BREAKER_STATE_CLOSED)
        assert stats.redis_breaker == caches_pb.BREAKER_STATE_UNSPECIFIED
        assert await results_of(serving).clear(Tenant("other")) == 0
        cleared = await caches.Clear(caches_pb.ClearRequest())
        assert cleared.answers == 1
        assert level(await told(serving, handle, greedy())) is None


async def test_only_what_must_have_the_same_answer_hits(tmp_path: Path) -> None:
    """Greedy, or with a seed of the caller's own; any other only if it says so."""
    async with caching(tmp_path) as serving:
        handle = await document(serving)

        async def second(**options: object) -> str | None:
            cache = options.pop("cache", pb.CACHE_MODE_UNSPECIFIED)
            task = prompt(f"Go on with {options} {cache}.", max_tokens=8, **options)
            task.cache = cache  # type: ignore[assignment]
            await told(serving, handle, task)
            return level(await told(serving, handle, task))

        assert await second(temperature=0.0) == "memory"
        assert await second(temperature=0.0, seed=3, any_seed=True) == "memory"
        assert await second(temperature=0.7, seed=3) == "memory"
        assert await second(temperature=0.7) is None
        assert await second(temperature=0.7, seed=3, any_seed=True) is None
        assert await second(temperature=0.7, cache=pb.CACHE_MODE_FORCE) == "memory"
        assert await second(temperature=0.0, cache=pb.CACHE_MODE_OFF) is None


async def test_the_cache_is_asked_only_where_it_may_be_and_says_so(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        task = greedy()
        await told(serving, handle, task)
        off = greedy()
        off.cache = pb.CACHE_MODE_OFF
        assert not (await told(serving, handle, off)).end.HasField("cache")
        assert level(await told(serving, handle, task)) == "memory"
        wrong = greedy()
        wrong.cache = 99  # type: ignore[assignment]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await told(serving, handle, wrong)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_with_any_seed_equal_forced_requests_have_equal_answers(tmp_path: Path) -> None:
    """Also where the first answer is not kept any more."""
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        answers = set()
        for seed in range(3):
            task = prompt(max_tokens=12, temperature=0.9, seed=seed, any_seed=True)
            task.cache = pb.CACHE_MODE_FORCE
            answers.add((await told(serving, handle, task)).text)
            await results_of(serving).kept()
            await results_of(serving).clear()
        assert len(answers) == 1
        assert stats_of(serving).misses == 3


async def test_an_answer_about_an_arriving_document_is_kept(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving:
        messages = analyze_messages(TEXT.encode(), greedy(), 500)
        first = await hear(serving.inference.Analyze(sending(messages)))
        assert first.end.cache.hit is False
        handle = first.end.documents[0].document_id
        # At once: it is found although it may not be kept yet.
        second = await hear(
            serving.inference.Generate(pb.GenerateRequest(document_ids=[handle], task=greedy()))
        )
        assert level(second) in ("flight", "memory")
        assert second.text == first.text
        assert level(await told(serving, handle, greedy())) == "memory"


async def test_another_tenant_policy_or_question_is_a_miss(tmp_path: Path) -> None:
    async with caching(tmp_path, trust_tenant_metadata=True) as serving:
        handles = {name: await document(serving, name=name) for name in ("anna", "berta")}
        for name, handle in handles.items():
            assert level(await told(serving, handle, greedy(), metadata=tenant(name))) is None
        anna = handles["anna"]
        metadata = tenant("anna")
        for task in (greedy("What else?"), greedy(attention="window"), greedy(max_tokens=23)):
            assert level(await told(serving, anna, task, metadata=metadata)) is None
        # The default policy by its name is the default policy.
        named = greedy(attention="full")
        assert level(await told(serving, anna, named, metadata=metadata)) is None
        assert level(await told(serving, anna, greedy(), metadata=metadata)) == "memory"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await told(serving, anna, greedy(), metadata=tenant("berta"))
        assert reason(refused.value) == "DOCUMENT_MISSING"
        await results_of(serving).kept()
        assert await results_of(serving).clear(Tenant("anna")) > 0
        assert level(await told(serving, anna, greedy(), metadata=metadata)) is None
        berta = handles["berta"]
        assert level(await told(serving, berta, greedy(), metadata=tenant("berta"))) == "memory"


async def test_extractive_answers_are_kept_too(tmp_path: Path) -> None:
    """Whoever answers, by any way of asking; the encoder is asked once."""
    data = (EXAMPLES / "services-agreement.md").read_bytes()
    async with serving_with(tmp_path, config(), result_cache_memory=1 << 20) as serving:
        messages = analyze_messages(data, ask("Who pays?"), 20_000)
        first = await hear(serving.inference.Analyze(sending(messages)))
        handle = first.end.documents[0].document_id
        asked = [await told(serving, handle, ask("Who pays?")) for _ in range(2)]
        assert [level(answer) for answer in asked] == ["memory", "memory"]
        assert asked[0].text == asked[1].text == first.text != ""
        assert asked[0].citations == asked[1].citations == first.citations
        assert level(await told(serving, handle, ask("Who pays?", 2))) is None
        summaries = [await told(serving, handle, summarize(2)) for _ in range(2)]
        assert [level(answer) for answer in summaries] == [None, "memory"]
        assert summaries[0].text == summaries[1].text


async def test_a_deleted_document_takes_its_answers_along(tmp_path: Path) -> None:
    """Also those about several documents; the same document, stored again, is read again."""
    async with caching(tmp_path) as serving:
        one, two = await document(serving), await document(serving, TEXT + "More.")
        await told(serving, one, greedy())
        await told(serving, [one, two], greedy())
        await results_of(serving).kept()
        before = stats_of(serving)
        assert before.disk is not None
        assert before.disk.entries == 2
        request = documents_pb.DeleteDocumentRequest(document_id=two)
        await serving.documents.DeleteDocument(request)
        after = stats_of(serving)
        assert after.disk is not None
        assert after.disk.entries == 1
        assert 0 < after.memory_bytes < before.memory_bytes
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await told(serving, [one, two], greedy())
        assert reason(refused.value) == "DOCUMENT_MISSING"
        assert level(await told(serving, one, greedy())) == "memory"
        assert await document(serving, TEXT + "More.") == two
        assert level(await told(serving, [one, two], greedy())) is None


async def test_answers_outlive_the_server_but_not_the_model(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        first = await told(serving, handle, greedy())
    async with caching(tmp_path) as serving:
        again = await told(serving, handle, greedy())
        assert level(again) == "disk"
        assert again.text == first.text
        assert level(await told(serving, handle, greedy())) == "memory"
        report = await results_of(serving).verify()
        assert (report.checked, report.damaged) == (1, 0)
    async with caching(tmp_path, pool=stories("--fingerprint", "beef")) as serving:
        assert level(await told(serving, handle, greedy())) is None


async def test_answers_do_not_outlive_the_files_that_they_follow_from(tmp_path: Path) -> None:
    """Other stop tokens make other answers of the same weights."""
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        await told(serving, handle, greedy())
    (tmp_path / "model" / "generation_config.json").write_text('{"eos_token_id": 3}')
    for found in (None, "disk"):
        async with caching(tmp_path) as serving:
            assert level(await told(serving, handle, greedy())) == found


async def test_a_damaged_answer_is_made_again(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        first = await told(serving, handle, greedy())
    [file] = record_files(tmp_path)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    async with caching(tmp_path) as serving:
        again = await told(serving, handle, greedy())
        assert level(again) is None
        assert again.text == first.text
    async with caching(tmp_path) as serving:
        assert level(await told(serving, handle, greedy())) == "disk"


async def test_the_clients_say_what_the_cache_did(tmp_path: Path) -> None:
    async with caching(tmp_path) as serving, client_of(serving) as client:
        handle = await document(serving)
        options = Generation(max_tokens=8)
        uses = []
        for cache in ("default", "default", "off"):
            async with client.prompt(handle, "Go on.", generation=options, cache=cache) as stream:
                uses.append((await stream.result()).completed.cache)
            await results_of(serving).kept()
        assert uses[0] is not None
        assert not uses[0].hit
        assert uses[1] is not None
        assert uses[1].level is CacheLevel.MEMORY
        assert uses[2] is None


async def test_the_command_line_shows_and_refuses_answers_given_before(tmp_path: Path) -> None:
    async with caching(tmp_path, "--say", "It is so.") as serving:
        arguments = ("prompt", await document(serving), "Go on.", "--max-tokens", "30")
        first = await longspan(*arguments, server=serving.target)
        await results_of(serving).kept()
        second = await longspan(*arguments, server=serving.target)
        third = await longspan(*arguments, "--json", "--no-cache", server=serving.target)
        assert first.out == second.out == "It is so.\n"
        assert "given before" not in first.err
        assert "an answer given before (memory)" in second.err
        assert third.events[-1]["cache"] is None
        assert stats_of(serving).hits == {Level.MEMORY: 1}


async def test_a_server_without_a_cache_has_none(tmp_path: Path) -> None:
    async with caching(tmp_path, result_cache_memory=0, result_cache_disk=0) as serving:
        handle = await document(serving)
        for _ in range(2):
            assert not (await told(serving, handle, greedy())).end.HasField("cache")
        assert not (tmp_path / "data" / "results").exists()
