"""KV pages of documents: named, seen, checked, cleared, and gone with their documents."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from longspan.v1 import cache_service_pb2 as caches
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_header, analyze_messages, chunks, tenant
from tests.e2e.generation import hear, prompt, sequences_of
from tests.e2e.kept_documents import (
    CONTEXT,
    PAGE,
    analyzed,
    asked,
    described,
    described_once,
    document_of,
    held,
    held_once,
    holds_nothing,
    long_text,
)
from tests.e2e.real_decoders import answering
from tests.pool.harness import until
from tests.support.serving import Serving
from tests.worker.decoding import stretched_stories

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTART_S = 60.0
LEASE_S = 1.0
OTHER = tenant("other")
SETTINGS = {
    "trust_tenant_metadata": True,
    "kv_disk": 64 << 20,
    "limits": {"kv_free_space_bytes": 0, "upload_lease_s": LEASE_S},
}


class Restartable:
    """A server with one worker of a small model and an SSD tier; ``serving`` is the one now."""

    def __init__(self, folder: Path) -> None:
        self._model = stretched_stories(folder / "model", context_tokens=CONTEXT)
        self.data = folder / "data"
        self._stack = AsyncExitStack()
        self.serving: Serving

    async def start(self) -> None:
        """Start it on its folder."""
        running = answering(self.data, self._model, **SETTINGS)
        self.serving = await self._stack.enter_async_context(running)

    async def stop(self) -> None:
        """Stop it; what waits to be stored is stored."""
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Restartable]:
    """One for all tests."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "model").mkdir()
    server = Restartable(folder)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def serving(server: Restartable) -> Serving:
    """As it runs now."""
    return server.serving


async def delete(serving: Serving, document_id: str) -> None:
    """Remove a document."""
    await serving.documents.DeleteDocument(docs.DeleteDocumentRequest(document_id=document_id))


async def test_a_documents_pages_have_its_name_and_go_with_it(serving: Serving) -> None:
    """They are computed under the upload's name, renamed, found by name, and forgotten."""
    document = document_of(await analyzed(serving, long_text(1)))
    pages = document.tokens // PAGE
    assert pages >= 5
    found = await described_once(
        serving, document.document_id, lambda one: one.kv.disk_pages >= pages
    )
    assert found.kv.pool_pages >= pages
    assert found.kv.disk_bytes > pages * 1000
    before = found.kv.hits
    written = await asked(serving, [document.document_id])
    assert written.end.usage.cached_tokens >= pages * PAGE
    again = await described(serving, document.document_id)
    assert before == 0
    assert pages <= again.kv.hits <= pages + 1
    assert again.kv.HasField("age")
    listed = await serving.documents.ListDocuments(docs.ListDocumentsRequest())
    assert [one.kv.disk_pages for one in listed.documents] == [again.kv.disk_pages]
    # Everything that this tenant has is named: nothing lies under the upload's name.
    assert (await held(serving)).disk_pages == again.kv.disk_pages
    await delete(serving, document.document_id)
    await holds_nothing(serving)
    repeated = await analyzed(serving, long_text(1))
    assert repeated.end.usage.cached_tokens == 0
    await delete(serving, document.document_id)
    await holds_nothing(serving)


async def test_a_document_deleted_while_it_is_read_leaves_nothing(serving: Serving) -> None:
    """Pages that a running sequence goes on computing are forgotten at its end."""
    document = document_of(await analyzed(serving, long_text(2)))
    task = prompt("Then", max_tokens=100)
    call = serving.inference.Analyze(_pieces(long_text(2), task))
    running = asyncio.create_task(hear(call))
    await until(lambda: sequences_of(serving).stats().jobs > 0)
    await delete(serving, document.document_id)
    await running
    [stored] = running.result().end.documents
    if stored.document_id == document.document_id:
        # It was stored again behind the deletion.
        await delete(serving, stored.document_id)
    await holds_nothing(serving)


async def _pieces(data: bytes, task: pb.Task) -> AsyncIterator[pb.AnalyzeRequest]:
    for message in analyze_messages(data, task, 300):
        yield message
        await asyncio.sleep(0.01)


async def test_an_upload_that_is_abandoned_is_forgotten_when_its_lease_ends(
    serving: Serving,
) -> None:
    """Its pages are kept for whoever resumes it, and go when nobody can."""
    call = serving.inference.Analyze()
    await call.write(analyze_header(prompt("Then", max_tokens=4)))
    for chunk in chunks(long_text(3), 1000):
        await call.write(pb.AnalyzeRequest(chunk=chunk))
    await held_once(serving, lambda one: one.pool_pages >= 5)
    assert (await held(serving, OTHER)).pool_pages == 0
    call.cancel()
    await holds_nothing(serving)
    assert await serving.server.application.library.count_uploads() == 0


async def test_tenants_see_and_clear_what_is_theirs(serving: Serving) -> None:
    """Stats and Clear are of the caller; Verify is of the whole folder."""
    mine = document_of(await analyzed(serving, long_text(4)))
    theirs = document_of(await analyzed(serving, long_text(4), OTHER))
    pages = mine.tokens // PAGE
    await described_once(serving, mine.document_id, lambda one: one.kv.disk_pages >= pages)
    await held_once(serving, lambda one: one.disk_pages >= pages, OTHER)
    stats = await serving.caches.Stats(caches.StatsRequest(), metadata=OTHER)
    assert stats.held.disk_pages >= pages
    assert stats.kv.disk_pages >= 2 * pages
    assert stats.kv.disk_budget_bytes == 64 << 20
    assert stats.kv.breaker == caches.BREAKER_STATE_CLOSED
    assert [worker.name for worker in stats.workers] == ["worker-0"]
    assert stats.workers[0].kv == stats.kv
    assert not stats.HasField("result_cache")
    verified = await serving.caches.Verify(caches.VerifyRequest())
    assert (verified.checked, verified.damaged) == (stats.kv.disk_pages, 0)
    cleared = await serving.caches.Clear(caches.ClearRequest(), metadata=OTHER)
    assert cleared.pages == stats.held.disk_pages
    assert cleared.bytes == stats.held.disk_bytes
    await holds_nothing(serving, OTHER)
    assert (await held(serving)).disk_pages >= pages
    assert (await described(serving, theirs.document_id, OTHER)).tokens == theirs.tokens
    await serving.caches.Clear(caches.ClearRequest())


async def test_a_document_whose_pages_are_gone_is_told_to_be_read_again(serving: Serving) -> None:
    """Once, before any text, with the tokens of its whole pages; not where pages were found."""
    first = await analyzed(serving, long_text(9))
    document = document_of(first)
    again = await asked(serving, [document.document_id])
    assert "rebuilt" not in [*first.events, *again.events]
    await serving.caches.Clear(caches.ClearRequest())
    cleared = await asked(serving, [document.document_id])
    assert cleared.events[0] == "rebuilt"
    assert cleared.events.count("rebuilt") == 1
    [rebuilt] = cleared.rebuilt
    assert rebuilt.document_id == document.document_id
    usage = cleared.end.usage
    assert usage.cached_tokens == 0
    assert rebuilt.tokens % PAGE == 0
    assert document.tokens - PAGE < rebuilt.tokens < document.tokens + usage.task_tokens
    assert "rebuilt" not in (await asked(serving, [document.document_id])).events
    await serving.caches.Clear(caches.ClearRequest())
    streamed = await analyzed(serving, long_text(9))
    assert [one.document_id for one in streamed.rebuilt] == [document.document_id]
    # Under another policy it has never been read.
    other = await asked(serving, [document.document_id], attention="hierarchical")
    assert other.end.usage.cached_tokens == 0
    assert "rebuilt" not in other.events
    await delete(serving, document.document_id)
    assert "rebuilt" not in (await analyzed(serving, long_text(9))).events
    await delete(serving, document.document_id)
    await holds_nothing(serving)


async def test_a_worker_killed_while_it_forgets_forgets_when_it_is_back(serving: Serving) -> None:
    """What was deleted while it was down is not known to the catalog: it goes."""
    document = document_of(await analyzed(serving, long_text(5)))
    kept = document_of(await analyzed(serving, long_text(6)))
    pages = document.tokens // PAGE
    for one in (document, kept):
        await described_once(serving, one.document_id, lambda doc: doc.kv.disk_pages >= pages)
    dispatcher = sequences_of(serving)
    [pid] = dispatcher.pids
    os.kill(pid, signal.SIGSTOP)
    await delete(serving, document.document_id)
    assert not (await described(serving, kept.document_id)).HasField("kv")
    os.kill(pid, signal.SIGKILL)
    await until(lambda: dispatcher.ready and dispatcher.pids != [pid], RESTART_S)
    own = await described_once(serving, kept.document_id, lambda one: one.HasField("kv"))
    await held_once(serving, lambda one: one.disk_pages <= own.kv.disk_pages)
    assert own.kv.disk_pages >= pages
    written = await asked(serving, [kept.document_id])
    assert written.end.usage.cached_tokens >= (pages - 1) * PAGE
    await delete(serving, kept.document_id)
    await holds_nothing(serving)


async def test_a_restart_finds_pages_and_drops_those_of_what_is_gone(server: Restartable) -> None:
    """On the same folder, a document's pages are found again; an orphan's are dropped."""
    document = document_of(await analyzed(server.serving, long_text(7)))
    orphan = document_of(await analyzed(server.serving, long_text(8)))
    pages = document.tokens // PAGE
    for one in (document, orphan):
        await described_once(
            server.serving, one.document_id, lambda doc: doc.kv.disk_pages >= pages
        )
    await server.stop()
    _delete_row(server.data, orphan.document_id)
    await server.start()
    serving = server.serving
    own = await described_once(serving, document.document_id, lambda one: one.HasField("kv"))
    assert own.kv.disk_pages >= pages
    await held_once(serving, lambda one: one.disk_pages <= own.kv.disk_pages)
    written = await asked(serving, [document.document_id])
    assert written.end.usage.cached_tokens >= (pages - 1) * PAGE


async def test_an_index_built_again_loses_no_page_of_a_document(server: Restartable) -> None:
    """The files know the upload's name alone, which is remembered beyond the lease."""
    task, last = prompt("Then", max_tokens=4), asyncio.Event()
    call = server.serving.inference.Analyze(_all_but_the_last(long_text(10), task, last))
    running = asyncio.create_task(hear(call))
    before = (await held(server.serving)).disk_pages
    await held_once(server.serving, lambda one: one.disk_pages >= before + 5)
    last.set()
    document = document_of(await running)
    pages = document.tokens // PAGE
    await described_once(
        server.serving, document.document_id, lambda one: one.kv.disk_pages >= pages
    )
    await asyncio.sleep(2 * LEASE_S)
    await server.serving.server.application.library.expire_uploads(LEASE_S)
    await server.stop()
    [index] = (server.data / "kv").glob("index-*.sqlite3")
    index.unlink()
    await server.start()
    # Its worker has been looked through.
    await until(lambda: sequences_of(server.serving).ready)
    await asyncio.sleep(LEASE_S)
    written = await asked(server.serving, [document.document_id])
    assert written.end.usage.cached_tokens >= (pages - 1) * PAGE
    assert "rebuilt" not in written.events
    await delete(server.serving, document.document_id)
    # By every name that they had.
    await held_once(server.serving, lambda one: one.disk_pages <= before)


async def _all_but_the_last(
    data: bytes, task: pb.Task, last: asyncio.Event
) -> AsyncIterator[pb.AnalyzeRequest]:
    *messages, commit = analyze_messages(data, task, 1000)
    for message in messages:
        yield message
    await last.wait()
    yield commit


def _delete_row(data_dir: Path, document_id: str) -> None:
    """As if it had been deleted and the server had died before any worker heard of it."""
    with sqlite3.connect(data_dir / "catalog.sqlite3") as db:
        db.execute("DELETE FROM documents WHERE document_id = ?", (document_id,))
        db.execute("DELETE FROM uploads WHERE document_id = ?", (document_id,))
    db.close()
