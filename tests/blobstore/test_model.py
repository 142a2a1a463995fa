"""Any sequence of operations does what a dictionary would do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.stats import Put
from longspan.blobstore.store import BlobStore
from tests.blobstore.folders import MAGIC, Ticks, blob_files, key, remove_index

BUDGET = 4000
NUMBERS = st.integers(0, 11)
TENANTS = st.sampled_from(["a", "b"])
SUBJECTS = st.sampled_from(["", "x", "y"])


class Model(RuleBasedStateMachine):
    """The store beside a dictionary in the order of use, the oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = Ticks()
        self.blobs: dict[bytes, tuple[str, str, bytes, int]] = {}
        self.open()

    def open(self) -> None:
        limits = StoreLimits(budget_bytes=BUDGET, tenant_share=0.75)
        self.store = BlobStore(self.folder, limits, magic=MAGIC, clock=self.clock)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def taken(self, tenant: str | None = None) -> int:
        return sum(b[3] for b in self.blobs.values() if tenant in (None, b[0]))

    @rule(
        number=NUMBERS,
        parts=st.lists(st.binary(max_size=400), max_size=4),
        tenant=TENANTS,
        subject=SUBJECTS,
    )
    def put(self, number: int, parts: list[bytes], tenant: str, subject: str) -> None:
        outcome = self.store.put(key(number), parts, tenant=tenant, subject=subject)
        if key(number) in self.blobs:
            assert outcome is Put.ALREADY
            self.touch(key(number))
            return
        assert outcome is Put.STORED
        path = next(path for path in blob_files(self.folder) if path.stem == key(number).hex())
        size = path.stat().st_size
        while self.taken(tenant) + size > BUDGET * 3 // 4:
            del self.blobs[next(k for k, b in self.blobs.items() if b[0] == tenant)]
        while self.taken() + size > BUDGET:
            del self.blobs[next(iter(self.blobs))]
        self.blobs[key(number)] = (tenant, subject, b"".join(parts), size)

    def touch(self, name: bytes) -> None:
        self.blobs[name] = self.blobs.pop(name)

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        found = self.store.read(key(number))
        if key(number) not in self.blobs:
            assert found is None
            return
        assert found == self.blobs[key(number)][2]
        self.touch(key(number))

    @rule(number=NUMBERS)
    def read_into(self, number: int) -> None:
        content = self.blobs.get(key(number), ("", "", b"", 0))[2]
        buffer = bytearray(len(content))
        assert self.store.read_into(key(number), memoryview(buffer)) == (key(number) in self.blobs)
        if key(number) in self.blobs:
            assert buffer == content
            self.touch(key(number))

    @rule(tenant=TENANTS, subject=SUBJECTS)
    def remove_subject(self, tenant: str, subject: str) -> None:
        gone = [k for k, b in self.blobs.items() if b[:2] == (tenant, subject)]
        assert self.store.remove_subject(tenant, subject) == len(gone)
        for name in gone:
            del self.blobs[name]

    @rule(tenant=st.none() | TENANTS)
    def clear(self, tenant: str | None) -> None:
        gone = [k for k, b in self.blobs.items() if tenant in (None, b[0])]
        assert self.store.clear(tenant) == len(gone)
        for name in gone:
            del self.blobs[name]

    @rule()
    def refresh(self) -> None:
        self.store.refresh()

    @rule(rebuild=st.booleans())
    def reopen(self, rebuild: bool) -> None:
        self.store.close()
        if rebuild:
            remove_index(self.folder)
        self.open()

    @precondition(lambda self: self.blobs)
    @rule()
    def sums(self) -> None:
        found = {(s.tenant, s.subject): (s.entries, s.bytes) for s in self.store.subjects()}
        expected: dict[tuple[str, str], tuple[int, int]] = {}
        for tenant, subject, _, size in self.blobs.values():
            entries, total = expected.get((tenant, subject), (0, 0))
            expected[tenant, subject] = (entries + 1, total + size)
        assert found == expected
        for tenant, subject in expected:
            [one] = self.store.subjects(tenant, [subject, "none such"])
            assert (one.tenant, one.subject) == (tenant, subject)
            assert (one.entries, one.bytes) == expected[tenant, subject]
            others = [s.subject for s in self.store.subjects(tenant) if s.subject != subject]
            assert [s.subject for s in self.store.subjects(tenant, others)] == others or not others

    @invariant()
    def agrees(self) -> None:
        assert {k for k in map(key, range(12)) if self.store.known(k)} == set(self.blobs)
        assert self.store.stats.bytes == self.taken()
        assert {path.stem for path in blob_files(self.folder)} == {k.hex() for k in self.blobs}


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
