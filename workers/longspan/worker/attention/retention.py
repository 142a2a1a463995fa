"""What a layer still needs of a sequence's pages as the sequence grows. Pure.

A policy says what queries see; retention follows from it and from the window that the layer was
trained with. Layers that need the same pages under every policy form a group: their parts of a
page live and die together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from longspan.worker.attention.policy import LayerPolicy, ModelPolicy


@dataclass(frozen=True, slots=True)
class Retention:
    """The pages that queries at or behind a page may see.

    Attributes:
        prefix_pages: the first ones, for ever.
        window_pages: those before a query's own; None: all of them.
    """

    prefix_pages: int = 0
    window_pages: int | None = None

    @property
    def drops(self) -> bool:
        """True where pages between the first and the last are never seen again."""
        return self.window_pages is not None

    def droppable(self, page: int) -> range:
        """Pages that no query in ``page`` or behind it sees."""
        if self.window_pages is None:
            return range(0)
        return range(self.prefix_pages, max(self.prefix_pages, page - self.window_pages))

    def held_pages(self, pages: int) -> int:
        """The most pages held at once while so many are computed, one chunk of a page each."""
        if self.window_pages is None:
            return pages
        return min(pages, self.prefix_pages + self.window_pages + 2)


KEEP = Retention()
"""Of a layer that may see everything."""

UNBOUNDED = 2**31
"""More pages than any sequence has."""


def retention(policy: LayerPolicy, window: int | None, page_tokens: int) -> Retention:
    """Of one layer; ``window`` is its own, in tokens, which stands above any policy.

    What a policy keeps on the host is no part of it: that is found by a page's number.
    """
    if window is not None:
        return Retention(0, -(-(window - 1) // page_tokens))
    if policy.drops or policy.on_host:
        return Retention(policy.prefix_pages, policy.window_pages)
    return KEEP


def widest(retentions: Iterable[Retention]) -> Retention:
    """What serves all of them."""
    found = list(retentions)
    windows = [one.window_pages for one in found if one.window_pages is not None]
    return Retention(
        max(one.prefix_pages for one in found), max(windows) if len(windows) == len(found) else None
    )


def longest(sizes: Collection[int], frames: int, retentions: Collection[Retention]) -> int:
    """The most pages of a sequence that holds all frames; ``sizes`` is a page's in each group."""
    whole = frames // sum(sizes)
    kept = sum(s for s, r in zip(sizes, retentions, strict=True) if not r.drops)
    held = sum(
        s * r.held_pages(UNBOUNDED) for s, r in zip(sizes, retentions, strict=True) if r.drops
    )
    if held > frames:
        return whole
    return max(whole, (frames - held) // kept) if kept else UNBOUNDED


def groups(
    policies: Sequence[ModelPolicy],
    windows: Sequence[int | None],
    page_tokens: int,
    *,
    apart: Collection[int] = (),
) -> list[list[int]]:
    """Layers that every policy treats alike, in order of their first layer.

    Args:
        policies: all that are served.
        windows: of each layer, its own, in tokens.
        page_tokens: of a page.
        apart: layers that are alike among themselves only.
    """
    found: dict[tuple[bool, tuple[Retention, ...]], list[int]] = {}
    for layer, window in enumerate(windows):
        alike = tuple(retention(policy.layer(layer), window, page_tokens) for policy in policies)
        found.setdefault((layer in apart, alike), []).append(layer)
    return list(found.values())
