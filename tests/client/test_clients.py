"""Calls, their life and their end, with both clients against a real socket."""

from __future__ import annotations

import asyncio
import io
import socket
import time
import warnings
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longspan.client import (
    AsyncClient,
    Client,
    ClientClosed,
    DeadlineExceeded,
    DocumentMissing,
    Priority,
    Progress,
    ServerUnavailable,
    Span,
    TextDelta,
    Timeout,
)
from tests.client.callers import QUICK, Caller
from tests.client.peer import Hang, PlainCut, citation, delta, running_peer

BOTH = pytest.mark.parametrize("caller", Caller)
TEXT = b"".join(b"%05d " % number for number in range(2_000))


async def test_documents_are_got_listed_read_and_deleted() -> None:
    async with running_peer() as (peer, target), AsyncClient(target, retry=QUICK) as client:
        ids = [peer.add(b"%d" % number, f"title {number}") for number in range(5)]
        big = peer.add(TEXT)
        assert [one.document_id async for one in client.list()] == [*ids, big]
        assert (await client.get(ids[0])).title == "title 0"
        peer.script.answer_failures = deque([(3_000, PlainCut())])
        assert await client.read(big) == TEXT
        assert await client.read(big, Span(10, 4_321)) == TEXT[10:4_321]
        assert await client.read(big, Span(0, 0)) == b""
        await client.delete(ids[0])
        with pytest.raises(DocumentMissing):
            await client.get(ids[0])


async def test_the_blocking_client_does_the_same() -> None:
    def calls(target: str, big: str) -> None:
        with Client(target, retry=QUICK) as client:
            assert client.health()
            assert len(list(client.list())) == 3
            document = client.get(big)
            assert client.read(document) == TEXT
            client.delete(document)
            with pytest.raises(DocumentMissing):
                client.read(big)

    async with running_peer() as (peer, target):
        peer.add(b"1")
        peer.add(b"2")
        big = peer.add(TEXT)
        peer.script.answer_failures = deque([(3_000, PlainCut())])
        await asyncio.to_thread(calls, target, big)


async def test_tasks_priorities_and_metadata_reach_the_server() -> None:
    async with (
        running_peer() as (peer, target),
        AsyncClient(target, metadata={"longspan-tenant": "acme"}) as client,
    ):
        document = await client.upload(b"text", title="t", media_type="text/markdown")
        peer.script.answers = deque([[delta("Yes. "), citation(1, "text"), delta("Really.")]])
        async with client.ask(document, "?", max_citations=7, priority=Priority.BATCH) as stream:
            assert [piece async for piece in stream.text()] == ["Yes. ", "Really."]
            answer = await stream.result()
        assert answer.completed.documents == (document,)
        async with client.summarize([document], max_sentences=2) as stream:
            await stream.result()
        async with client.prompt([document.document_id], "Do.") as stream:
            await stream.result()
        ask, summarize, prompt = peer.tasks
        assert (ask.ask.max_citations, ask.priority) == (7, 1)
        assert (summarize.summarize.max_sentences, summarize.priority) == (2, 0)
        assert prompt.prompt.text == "Do."
        assert (document.title, document.media_type) == ("t", "text/markdown")
        assert all(one["longspan-tenant"] == "acme" for one in peer.metadata)


@BOTH
async def test_every_kind_of_source_is_sent(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(TEXT)
    file = io.BytesIO(b"skipped" + TEXT)
    file.seek(7)
    async with running_peer() as (peer, target):
        peer.script.max_chunk_bytes = 1_000
        for source in (path, str(path), TEXT, file, [TEXT[:5], b"", TEXT[5:]], iter([TEXT])):
            peer.documents.clear()
            document = await caller.upload(target, source)
            assert peer.documents[document.document_id][1] == TEXT
        assert [header.title for header in peer.headers] == ["a.md", "a.md", "", "", "", ""]
        declared = [header.declared_bytes for header in peer.headers]
        assert declared == [len(TEXT)] * 4 + [0, 0]


async def test_an_asynchronous_iterator_is_a_source() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(TEXT), 999):
            await asyncio.sleep(0)
            yield TEXT[start : start + 999]

    async with running_peer() as (peer, target), AsyncClient(target) as client:
        document = await client.upload(pieces())
        assert peer.documents[document.document_id][1] == TEXT


@BOTH
async def test_what_a_source_raises_reaches_the_caller(caller: Caller, tmp_path: Path) -> None:
    text_file = io.TextIOWrapper(io.BytesIO(b"text"))
    async with running_peer() as (_, target):
        with pytest.raises(FileNotFoundError):
            await caller.upload(target, tmp_path / "none.txt")
        with pytest.raises(TypeError, match="not bytes"):
            await caller.upload(target, ["text"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="'rb'"):
            await caller.upload(target, text_file)  # type: ignore[arg-type]


async def test_leaving_a_stream_cancels_the_call_at_once() -> None:
    async with running_peer() as (peer, target), AsyncClient(target) as client:
        peer.script.answers = deque([[delta("One")]])
        peer.script.answer_failures = deque([(1, Hang())])
        async with client.ask([], "?") as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        await asyncio.wait_for(peer.cancelled.wait(), 2)
        with pytest.raises(RuntimeError, match="left"):
            await stream.result()


async def test_leaving_a_blocking_stream_cancels_the_call_at_once() -> None:
    def leave(target: str) -> None:
        with Client(target) as client, client.ask([], "?") as stream:
            for text in stream.text():
                assert text == "One"
                break

    async with running_peer() as (peer, target):
        peer.script.answers = deque([[delta("One")]])
        peer.script.answer_failures = deque([(1, Hang())])
        await asyncio.to_thread(leave, target)
        await asyncio.wait_for(peer.cancelled.wait(), 2)


async def test_a_cancelled_task_cancels_its_upload() -> None:
    async with running_peer() as (peer, target), AsyncClient(target) as client:
        peer.script.stored_failures = deque([Hang()])
        task = asyncio.create_task(client.upload(TEXT))
        await asyncio.wait_for(peer.hanging.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(peer.cancelled.wait(), 2)


@BOTH
@pytest.mark.parametrize("timeout", [Timeout(idle=0.2), Timeout(total=0.3)])
async def test_silence_and_lateness_end_a_call(caller: Caller, timeout: Timeout) -> None:
    async with running_peer() as (peer, target):
        peer.script.failures = deque([Hang()])
        with pytest.raises(DeadlineExceeded):
            await caller.ask(target, timeout=timeout)
        await asyncio.wait_for(peer.cancelled.wait(), 2)


@BOTH
async def test_a_slow_reader_is_not_taken_for_a_silent_server(caller: Caller) -> None:
    async with running_peer() as (peer, target):
        peer.script.answers = deque([[delta("a"), delta("b")]])

        def slowly() -> str:
            with Client(target, timeout=Timeout(idle=0.1)) as client:
                return read_slowly(client)

        def read_slowly(client: Client) -> str:
            with client.ask([], "?") as stream:
                text = ""
                for piece in stream.text():
                    text += piece
                    time.sleep(0.15)
                return text

        async def slowly_on_the_loop() -> str:
            text = ""
            async with (
                AsyncClient(target, timeout=Timeout(idle=0.1)) as client,
                client.ask([], "?") as stream,
            ):
                async for piece in stream.text():
                    text += piece
                    await asyncio.sleep(0.15)
            return text

        blocking = caller is Caller.SYNC
        text = await (asyncio.to_thread(slowly) if blocking else slowly_on_the_loop())
        assert text == "ab"


@BOTH
async def test_no_server_is_said_within_the_connect_timeout(caller: Caller) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        started_s = time.monotonic()
        with pytest.raises(ServerUnavailable, match="no server answers"):
            await caller.ask(target, timeout=Timeout(connect=0.3))
        assert time.monotonic() - started_s < 3
        async with AsyncClient(target, timeout=Timeout(connect=0.3)) as client:
            assert not await client.health()


async def test_health_and_progress_are_told() -> None:
    seen: list[Progress] = []
    async with running_peer() as (_, target), AsyncClient(target) as client:
        assert await client.health()
        async with client.ask([], "?") as stream:
            seen = [event async for event in stream if isinstance(event, Progress)]
    assert [one.stage.value for one in seen] == ["answering"]


async def test_a_closed_client_refuses_and_closes_twice() -> None:
    client = AsyncClient("localhost:1")
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.get("doc")
    blocking = Client("localhost:1")
    blocking.close()
    with pytest.raises(ClientClosed):
        blocking.get("doc")


async def test_a_client_that_was_used_and_not_closed_warns() -> None:
    async with running_peer() as (_, target):
        client = AsyncClient(target)
        await client.health()
        with pytest.warns(ResourceWarning, match="unclosed <AsyncClient"):
            client.__del__()
        await client.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.__del__()
            Client(target).__del__()


@pytest.mark.parametrize("field", ["connect", "idle", "total"])
def test_a_timeout_must_be_positive(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Timeout(**{field: 0.0})
