"""Catalog and library: paging, recovery after a crash at the worst moment, expiry."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import ConfigError, DocumentMissing, QuotaExceeded, UploadMissing
from longspan.server.identity import DocumentId, Tenant, UploadId, document_id
from longspan.server.limits import Limits
from longspan.server.store.catalog import Catalog
from longspan.server.store.library import RESERVE_BYTES, Library
from longspan.server.store.records import OpenUpload, Place, StoredDocument

TENANT, OTHER = Tenant("acme"), Tenant("other")
CONTENT = b"some text"
SHA = hashlib.sha256(CONTENT).hexdigest()


def stored(name: str, created_s: float, tenant: Tenant = TENANT) -> StoredDocument:
    """A row."""
    return StoredDocument(
        DocumentId(name), tenant, "title", "text/plain", 9, 9, SHA, 0, 0, created_s
    )


def opened(name: str, document: DocumentId | None = None) -> OpenUpload:
    """A row."""
    return OpenUpload(UploadId(name), TENANT, "title", "text/plain", None, 5.0, document)


NAMES = st.text("abc", min_size=1, max_size=3)


@given(
    rows=st.dictionaries(NAMES, st.sampled_from([1.0, 1.5, 2.0, 2e9 / 3])),
    size=st.integers(1, 5),
)
def test_pages_are_the_sorted_list_cut_in_pieces(rows: dict[str, float], size: int) -> None:
    catalog = Catalog(Path(":memory:"))
    for name, created_s in rows.items():
        catalog.put_document(stored(name, created_s))
    catalog.put_document(stored("of another", 1.5, OTHER))
    expected = sorted(rows, key=lambda name: (-rows[name], name))
    found: list[str] = []
    after = None
    while page := catalog.documents(TENANT, limit=size, after=after):
        found += [document.document_id for document in page]
        after = Place.of_token(page[-1].place.token())
    assert found == expected
    catalog.close()


@given(created_s=st.floats(0, 1e12), name=NAMES)
def test_a_place_travels_exactly(created_s: float, name: str) -> None:
    place = Place(created_s, DocumentId(name))
    assert Place.of_token(place.token()) == place


@pytest.mark.parametrize("token", ["x", "_", "1e5", "nan_x", "inf_x", "0x1p9999_x", "doc_123"])
def test_what_is_no_place_is_refused_or_a_number(token: str) -> None:
    if token == "1e5":
        assert Place.of_token(token).document_id == ""
        return
    with pytest.raises(ValueError, match=r".+"):
        Place.of_token(token)


def test_the_same_document_keeps_its_first_time_and_what_is_known_of_it(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    catalog.put_document(stored("doc", 1.0))
    assert catalog.set_indexed(DocumentId("doc"), tokens=7, passages=2)
    kept = catalog.put_document(stored("doc", 2.0))
    assert (kept.created_s, kept.tokens, kept.passages) == (1.0, 7, 2)
    assert not catalog.set_indexed(DocumentId("absent"), tokens=7, passages=2)
    catalog.close()


def test_a_document_and_its_upload_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    catalog._db.execute("DROP TABLE uploads")
    with pytest.raises(Exception, match="no such table"):
        catalog.put_stored(stored("doc", 1.0), opened("up", DocumentId("doc")))
    assert catalog.document(TENANT, DocumentId("doc")) is None
    catalog.put_document(stored("later", 1.0))
    catalog.close()


def test_deleting_takes_the_uploads_that_led_to_the_document(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "catalog")
    catalog.put_stored(stored("doc", 1.0), opened("up", DocumentId("doc")))
    assert not catalog.delete_document(OTHER, DocumentId("doc"))
    assert catalog.upload(TENANT, UploadId("up")) is not None
    assert catalog.delete_document(TENANT, DocumentId("doc"))
    assert catalog.upload(TENANT, UploadId("up")) is None
    catalog.close()


async def finished_upload(library: Library) -> tuple[OpenUpload, StoredDocument]:
    """An upload with all its bytes, and the document it becomes."""
    upload = await library.open_upload(
        TENANT, title="title", media_type="text/plain", declared_bytes=None
    )
    library.vault.spool(upload.upload_id).write_bytes(CONTENT)
    document = await library.keep(upload, size_bytes=9, size_chars=9, sha256=SHA)
    return upload, document


async def test_a_crash_between_row_and_rename_is_finished_on_the_next_start(
    tmp_path: Path,
) -> None:
    async with Library(tmp_path) as library:
        upload, document = await finished_upload(library)
        library.vault.content(document).rename(library.vault.spool(upload.upload_id))
    async with Library(tmp_path) as library:
        assert library.vault.content(document).read_bytes() == CONTENT
        assert library.vault.spools() == []
        assert await library.document(TENANT, document.document_id) == document


async def test_a_spool_without_a_row_is_removed_and_one_with_a_row_stays(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        upload = await library.open_upload(
            TENANT, title="", media_type="text/plain", declared_bytes=None
        )
        library.vault.spool(upload.upload_id).write_bytes(b"half")
        library.vault.spool(UploadId("up_stranger")).write_bytes(b"whose?")
    async with Library(tmp_path) as library:
        assert library.vault.spools() == [upload.upload_id]
        assert await library.find_upload(TENANT, upload.upload_id) == upload
        with pytest.raises(UploadMissing):
            await library.find_upload(OTHER, upload.upload_id)


async def test_a_spool_of_a_document_deleted_meanwhile_is_removed(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        upload, document = await finished_upload(library)
        await library.delete(TENANT, document.document_id)
        library._catalog.put_upload(opened(upload.upload_id, document.document_id))
        library.vault.spool(upload.upload_id).write_bytes(CONTENT)
    async with Library(tmp_path) as library:
        assert library.vault.spools() == []
        with pytest.raises(DocumentMissing):
            await library.document(TENANT, document.document_id)


async def test_an_index_written_after_the_deletion_is_removed(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        _, document = await finished_upload(library)
        index = library.vault.index(document, "f" * 64)
        index.write_bytes(b"kept")
        assert await library.set_indexed(document)
        assert index.exists()
        await library.delete(TENANT, document.document_id)
        assert not index.exists()
        index.write_bytes(b"late")
        assert not await library.set_indexed(document)
        assert not index.exists()


async def test_only_old_uploads_that_nobody_sends_expire(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        uploads = [
            await library.open_upload(TENANT, title="", media_type="x", declared_bytes=None)
            for _ in range(2)
        ]
        assert await library.expire_uploads(60.0) == 0
        spared = {uploads[0].upload_id}
        assert await library.expire_uploads(-1.0, spared=spared) == 1
        assert await library.count_uploads() == 1


def test_the_newest_uploads_of_a_document_are_remembered_until_it_goes() -> None:
    """Its KV pages may lie under their names."""
    catalog = Catalog(Path(":memory:"))
    catalog.put_document(stored("doc", 1.0))
    for number in range(20):
        catalog.put_upload(replace(opened(f"{number}", DocumentId("doc")), touched_s=float(number)))
    catalog.put_upload(replace(opened("open"), touched_s=2.0))
    catalog.put_upload(replace(opened("late"), touched_s=50.0))
    expired = [upload.upload_id for upload in catalog.expired(touched_before_s=30.0)]
    assert sorted(expired) == ["0", "1", "2", "3", "open"]
    for upload_id in expired:
        catalog.delete_upload(upload_id)
    assert catalog.has(TENANT, "4")
    assert not catalog.has(TENANT, "3")
    assert catalog.count_uploads() == 1
    assert catalog.delete_document(TENANT, DocumentId("doc"))
    assert not catalog.has(TENANT, "4")
    catalog.close()


async def test_an_upload_that_is_given_up_while_it_opens_counts_no_more(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        opening = asyncio.create_task(
            library.open_upload(TENANT, title="", media_type="text/plain", declared_bytes=9)
        )
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await library.count_uploads() == 0


async def test_totals_counted_while_a_document_comes_are_not_kept(tmp_path: Path) -> None:
    async with Library(tmp_path) as library:
        upload = await library.open_upload(
            TENANT, title="title", media_type="text/plain", declared_bytes=None
        )
        library.vault.spool(upload.upload_id).write_bytes(CONTENT)
        counting = asyncio.create_task(library.totals())
        keeping = asyncio.create_task(library.keep(upload, size_bytes=9, size_chars=9, sha256=SHA))
        await asyncio.sleep(0)
        # Both are done before this loop, which stands still, hears of the first.
        library._thread.submit(lambda: None).result()
        assert await counting == (0, 0)
        await keeping
        assert await library.totals() == (1, 9)


async def test_a_folder_serves_one_library_at_a_time(tmp_path: Path) -> None:
    async with Library(tmp_path):
        with pytest.raises(ConfigError, match="in use by another server"):
            Library(tmp_path)
    async with Library(tmp_path) as library:
        assert await library.count_uploads() == 0


@given(sha256=st.sampled_from([SHA, "0" * 64]), one=NAMES, other=NAMES)
def test_ids_differ_between_tenants(sha256: str, one: str, other: str) -> None:
    same = document_id(Tenant(one), sha256) == document_id(Tenant(other), sha256)
    assert same == (one == other)


def test_usage_counts_documents_and_open_uploads_of_one_tenant() -> None:
    catalog = Catalog(Path(":memory:"))
    assert catalog.usage(TENANT) == (0, 0)
    catalog.put_document(stored("doc", 1.0))
    catalog.put_document(stored("theirs", 1.0, OTHER))
    catalog.put_upload(replace(opened("open"), reserved_bytes=100))
    catalog.put_upload(replace(opened("stored", DocumentId("doc")), reserved_bytes=1000))
    assert catalog.usage(TENANT) == (2, 109)
    catalog.reserve(UploadId("open"), 200)
    assert catalog.usage(TENANT) == (2, 209)
    catalog.delete_document(TENANT, DocumentId("doc"))
    catalog.delete_upload(UploadId("open"))
    assert catalog.usage(TENANT) == (0, 0)
    catalog.close()


async def test_an_upload_of_unknown_length_reserves_ahead_where_there_is_room(
    tmp_path: Path,
) -> None:
    limits = Limits(tenant_bytes=RESERVE_BYTES + 1000)
    async with Library(tmp_path, limits) as library:
        one, two = [
            await library.open_upload(TENANT, title="", media_type="", declared_bytes=None)
            for _ in range(2)
        ]
        assert (one.reserved_bytes, two.reserved_bytes) == (RESERVE_BYTES, 1000)
        with pytest.raises(QuotaExceeded):
            await library.reserve(two, 1000, 1001)
        with pytest.raises(QuotaExceeded):
            await library.reserve(one, RESERVE_BYTES, RESERVE_BYTES + 1)
        await library.discard_upload(one)
        assert await library.reserve(two, 1000, 1001) == RESERVE_BYTES + 1000


def test_a_folder_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "catalog.sqlite3"
    catalog = Catalog(path)
    catalog.put_upload(opened("up"))
    catalog.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE uploads DROP COLUMN reserved_bytes")
        db.execute("DROP TABLE readings")
    catalog = Catalog(path)
    assert catalog.upload(TENANT, UploadId("up")) == opened("up")
    catalog.put_document(stored("doc", 1.0))
    catalog.note_reading(DocumentId("doc"), "full", 256, 300, 1.0)
    assert catalog.tokens_read(DocumentId("doc"), "full") == 256
    catalog.close()


def test_the_newest_readings_of_a_document_are_remembered_until_it_goes() -> None:
    catalog, doc = Catalog(Path(":memory:")), DocumentId("doc")
    catalog.note_reading(doc, "as it was", 256, 300, 1.0)
    assert catalog.tokens_read(doc, "as it was") == 0, "there is no such document"
    catalog.put_document(stored("doc", 1.0))
    for number in range(20):
        catalog.note_reading(doc, f"{number}", 256 * number, 300, float(number))
    catalog.note_reading(doc, "19", 512, 300, 30.0)
    found = catalog.document(TENANT, doc)
    assert found is not None
    assert found.tokens == 300
    kept = [number for number in range(20) if catalog.tokens_read(doc, f"{number}")]
    assert kept == list(range(4, 20))
    assert catalog.tokens_read(doc, "19") == 512
    assert not catalog.delete_document(OTHER, doc)
    assert catalog.tokens_read(doc, "19") == 512
    assert catalog.delete_document(TENANT, doc)
    assert catalog.tokens_read(doc, "19") == 0
    catalog.close()


async def test_what_is_gone_is_told_with_the_uploads_that_led_to_it(tmp_path: Path) -> None:
    told: list[tuple[Tenant, list[str]]] = []
    async with Library(tmp_path) as library:
        library.watch(lambda tenant, names: told.append((tenant, [*names])))
        upload = await library.open_upload(TENANT, title="", media_type="", declared_bytes=9)
        library.vault.spool(upload.upload_id).write_bytes(CONTENT)
        document = await library.keep(upload, size_bytes=9, size_chars=9, sha256=SHA)
        abandoned = await library.open_upload(OTHER, title="", media_type="", declared_bytes=9)
        names = [(TENANT, document.document_id), (TENANT, upload.upload_id), (OTHER, "up_")]
        assert await library.unknown(names) == [(OTHER, "up_")]
        assert await library.unknown([(OTHER, document.document_id)]) != []
        await library.delete(TENANT, document.document_id)
        await library.expire_uploads(-1.0)
    assert told == [
        (TENANT, [document.document_id, upload.upload_id]),
        (OTHER, [abandoned.upload_id]),
    ]
