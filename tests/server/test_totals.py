"""The running totals of a catalog equal what its rows add up to, whatever is done to them."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longspan.server.identity import DocumentId, Tenant, UploadId
from longspan.server.store.catalog import Catalog
from longspan.server.store.records import OpenUpload, StoredDocument

TENANTS = st.sampled_from([Tenant("a"), Tenant("b")])
NAMES = st.sampled_from(["one", "two", "three"])
SIZES = st.integers(0, 1000)

NAIVE = """
SELECT count(*), coalesce(sum(size), 0) FROM (
    SELECT size_bytes AS size FROM documents WHERE tenant = :tenant UNION ALL
    SELECT reserved_bytes FROM uploads WHERE tenant = :tenant AND document_id IS NULL
)"""


def document(tenant: Tenant, name: str, size: int) -> StoredDocument:
    """A row; ids of tenants differ."""
    found = DocumentId(f"doc_{tenant}_{name}")
    return StoredDocument(found, tenant, "title", "text/plain", size, size, "00", 0, 0, 1.0)


def upload(tenant: Tenant, name: str, size: int) -> OpenUpload:
    """A row that is open."""
    row = OpenUpload(
        UploadId(f"up_{tenant}_{name}"), tenant, "title", "text/plain", None, 5.0, None
    )
    return replace(row, reserved_bytes=size)


class AgainstTheRows(RuleBasedStateMachine):
    """Everything that changes what a tenant keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.catalog = Catalog(Path(":memory:"))

    def teardown(self) -> None:
        self.catalog.close()

    @rule(tenant=TENANTS, name=NAMES, size=SIZES)
    def put_document(self, tenant: Tenant, name: str, size: int) -> None:
        self.catalog.put_document(document(tenant, name, size))

    @rule(tenant=TENANTS, name=NAMES, size=SIZES)
    def put_upload(self, tenant: Tenant, name: str, size: int) -> None:
        self.catalog.put_upload(upload(tenant, name, size))

    @rule(tenant=TENANTS, name=NAMES, size=SIZES)
    def put_stored(self, tenant: Tenant, name: str, size: int) -> None:
        row = document(tenant, name, size)
        self.catalog.put_stored(
            row, replace(upload(tenant, name, size), document_id=row.document_id)
        )

    @rule(tenant=TENANTS, name=NAMES, size=SIZES)
    def reserve(self, tenant: Tenant, name: str, size: int) -> None:
        self.catalog.reserve(UploadId(f"up_{tenant}_{name}"), size)

    @rule(tenant=TENANTS, name=NAMES)
    def delete_document(self, tenant: Tenant, name: str) -> None:
        self.catalog.delete_document(tenant, DocumentId(f"doc_{tenant}_{name}"))

    @rule(tenant=TENANTS, name=NAMES)
    def delete_upload(self, tenant: Tenant, name: str) -> None:
        self.catalog.delete_upload(UploadId(f"up_{tenant}_{name}"))

    @invariant()
    def totals_are_those_of_the_rows(self) -> None:
        for tenant in ("a", "b"):
            naive = self.catalog._db.execute(NAIVE, {"tenant": tenant}).fetchone()
            assert self.catalog.usage(Tenant(tenant)) == naive


TestAgainstTheRows = AgainstTheRows.TestCase
TestAgainstTheRows.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_a_transaction_that_fails_changes_no_total(tmp_path: Path) -> None:
    with closing(Catalog(tmp_path / "catalog")) as catalog:
        catalog._db.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON uploads BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        row = document(Tenant("a"), "one", 9)
        with pytest.raises(sqlite3.IntegrityError, match="no"):
            catalog.put_stored(row, upload(Tenant("a"), "one", 9))
        assert catalog.usage(Tenant("a")) == (0, 0)
        with suppress(sqlite3.IntegrityError):
            catalog.put_upload(upload(Tenant("a"), "one", 9))
        assert catalog.usage(Tenant("a")) == (0, 0)


def test_totals_are_counted_again_from_the_rows_of_a_folder(tmp_path: Path) -> None:
    with closing(Catalog(tmp_path / "catalog")) as catalog:
        catalog.put_document(document(Tenant("a"), "one", 9))
        catalog.put_upload(upload(Tenant("a"), "two", 100))
    with closing(Catalog(tmp_path / "catalog")) as catalog:
        assert catalog.usage(Tenant("a")) == (2, 109)
