"""The pages of all sequences: found, held, completed, evicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from longspan.worker.generation.sequence import Sequence
from longspan.worker.kv.pages import PageTable


class Memory:
    """Moves pages between a table and its sequences' block tables."""

    def __init__(self, table: PageTable, page_tokens: int) -> None:
        self._table = table
        self.page_tokens = page_tokens

    @property
    def total(self) -> int:
        """Pages there are."""
        return self._table.total

    @property
    def free(self) -> int:
        """Pages that nobody holds."""
        return self._table.free

    def borrow(self, sequence: Sequence) -> None:
        """Take pages from the cache as far as they go on from where the sequence stands.

        A page that it has computed in part is given up for a whole one.
        """
        while sequence.page_borrowable(sequence.page):
            found = self._table.find(sequence.key(sequence.page))
            if found is None:
                return
            if sequence.is_within_page:
                self._table.release([sequence.block_table.pop()])
            sequence.borrow(found)

    def hold(self, sequence: Sequence, count: int) -> None:
        """Put new pages behind the others; so many are free."""
        if count > 0:
            sequence.block_table.extend(self._table.allocate(count))

    def complete(self, sequence: Sequence, end: int) -> None:
        """The KV of all positions below ``end`` is there: name the pages that became full."""
        first, last = sequence.computed // self.page_tokens, end // self.page_tokens
        for page in range(first, last):
            held = int(sequence.block_table.view(page, page + 1)[0])
            self._table.register(held, sequence.key(page))
        sequence.advance(end)

    def release(self, sequence: Sequence) -> None:
        """Give up all pages; the last ones are evicted first."""
        pages = sequence.block_table.view(0, len(sequence.block_table))
        self._table.release(pages[::-1].tolist())
        sequence.block_table.clear()

    def evict(self, sequence: Sequence) -> None:
        """Preempt a sequence; it goes on when as much is free as it had to itself, and more."""
        sequence.parked |= sequence.pending == 0
        before = self.free
        self.release(sequence)
        sequence.evict()
        sequence.resume_pages = min(self.free - before + 1, self.total)

    def check(self, sequences: Collection[Sequence]) -> None:
        """Verify that every page is held as often as it stands in a block table.

        Raises:
            AssertionError: the accounting is wrong.
        """
        self._table.check()
        held: Counter[int] = Counter()
        for sequence in sequences:
            pages = sequence.block_table.view(0, len(sequence.block_table)).tolist()
            assert len(pages) == len(set(pages))
            assert len(pages) >= sequence.pages_for(sequence.computed)
            held.update(pages)
        assert all(held[page] == self._table.references(page) for page in range(self.total))


def victim(requester: Sequence, sequences: Iterable[Sequence]) -> Sequence | None:
    """Whose pages the requester may take: of those that wait for their client, else of those
    that go after it, the last in rank.

    One that only reads ahead takes nobody's: two of them would evict each other for ever.
    """
    if requester.parked:
        return None
    candidates = (
        other
        for other in sequences
        if other is not requester
        and len(other.block_table)
        and (other.is_waiting or other.rank > requester.rank)
    )
    return max(candidates, key=lambda other: (other.is_waiting, other.rank), default=None)
