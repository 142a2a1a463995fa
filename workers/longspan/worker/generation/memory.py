"""The pages of all sequences: found, held, completed, evicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from longspan.worker.generation.sequence import HOLE, Sequence
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
                break
            if sequence.is_within_page:
                self._table.release([sequence.block_table.pop()])
            sequence.borrow(found)
        if sequence.spec.policy.drops:
            self._skip(sequence)
            self._drop(sequence)

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
        self._drop(sequence)

    def release(self, sequence: Sequence) -> None:
        """Give up all pages; the last ones are evicted first."""
        self._table.release(sequence.pages()[::-1].tolist())
        sequence.forget_pages()

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
            pages = sequence.pages().tolist()
            assert len(pages) == len(set(pages))
            assert HOLE not in pages
            assert len(sequence.block_table) >= sequence.pages_for(sequence.computed)
            held.update(pages)
        assert all(held[page] == self._table.references(page) for page in range(self.total))

    def _drop(self, sequence: Sequence) -> None:
        """Give up the pages that nothing will see; they stay cached until they are needed."""
        droppable = sequence.droppable()
        first = max(droppable.start, sequence.dropped.stop)
        if first < droppable.stop:
            pages = sequence.block_table.view(first, droppable.stop)
            self._table.release(pages[pages != HOLE].tolist())
            sequence.drop(droppable)

    def _skip(self, sequence: Sequence) -> None:
        """Go on where all that is still seen is cached, though pages before it are gone."""
        if sequence.is_within_page or sequence.page < sequence.spec.policy.prefix_pages:
            return
        needed = sequence.spec.policy.window_pages
        place = sequence.page
        while sequence.page_borrowable(place):
            place += 1
        run, top = 0, place
        while place > sequence.page and run < needed:
            place -= 1
            known = self._table.knows(sequence.key(place))
            run, top = (run + 1, top) if known else (0, place)
        if run == 0 or (run < needed and place > sequence.page):
            return
        sequence.skip(place)
        for _ in range(place, top):
            found = self._table.find(sequence.key(sequence.page))
            assert found is not None
            sequence.borrow(found)


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
