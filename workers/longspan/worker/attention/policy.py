"""Attention policies: which keys a query sees in each layer. Pure.

Everything is counted in whole pages and aligned to absolute positions, so that what a document's
KV pages hold depends neither on how its text was cut nor on the question behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from math import ceil


class Kind(StrEnum):
    """How a layer looks at a sequence.

    ``FULL`` sees all keys; ``WINDOW`` the first pages and the last ones (StreamingLLM,
    arXiv:2309.17453); ``HYBRID`` beside these the pages that promise the largest scores (Quest,
    arXiv:2406.10774); ``HIERARCHICAL`` the same, and a summary of all other pages.
    """

    FULL = "full"
    WINDOW = "window"
    HYBRID = "hybrid"
    HIERARCHICAL = "hierarchical"


class Far(StrEnum):
    """How a hierarchical layer sees the pages that it neither keeps in view nor selects.

    ``NONE`` not at all; ``CENTROID`` the mean key and value of every ``CENTROID_TOKENS`` of them,
    as one key that counts for so many; ``LINEAR`` all of their keys, by linear attention, which
    needs feature maps that were distilled from the model (LoLCATs, arXiv:2410.10254).
    """

    NONE = "none"
    CENTROID = "centroid"
    LINEAR = "linear"


class Selector(StrEnum):
    """How a layer tells which pages to choose.

    ``QUEST`` by upper bounds of their scores, which are kept beside the keys; ``EXACT`` by the
    scores themselves, for which every key is read; ``LOW_BIT`` by the scores of copies of the keys
    in 4 bits, which are kept beside them.
    """

    QUEST = "quest"
    EXACT = "exact"
    LOW_BIT = "low-bit"


CENTROID_TOKENS = 64
"""Tokens that one centroid stands for: a quarter of a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPolicy:
    """What one layer sees from a query in page D of its sequence.

    The keys are those at or before the query in the pages [0, prefix_pages), in
    [D - window_pages, D], and in ``selected_pages`` of those between, each kv head its own.
    All keys are seen where ``FULL`` says so; and, where pages are selected, from the first
    ``dense_pages`` pages and from the whole task behind the documents. ``selector`` says how pages
    are chosen, ``far`` how those are seen that are left. ``on_host`` changes nothing of that: pages
    before the window lie in the host's memory, and what is chosen of them is copied when it is.

    Raises:
        ValueError: a number is negative, or has no meaning for this kind.
    """

    kind: Kind = Kind.FULL
    prefix_pages: int = 0
    window_pages: int = 0
    selected_pages: int = 0
    dense_pages: int = 0
    far: Far = Far.NONE
    selector: Selector = Selector.QUEST
    on_host: bool = False

    def __post_init__(self) -> None:
        sizes = (self.prefix_pages, self.window_pages, self.selected_pages, self.dense_pages)
        if min(sizes) < 0:
            raise ValueError(f"a policy counts in pages, not in {min(sizes)}")
        if self.kind is Kind.FULL and any(sizes):
            raise ValueError("a full layer sees everything")
        if self.kind is Kind.WINDOW and (self.selected_pages or self.dense_pages):
            raise ValueError("a window layer keeps no pages to select from")
        if self.kind is not Kind.FULL and self.prefix_pages < 1:
            raise ValueError("without its first tokens a model is lost (attention sinks)")
        if self.far is not Far.NONE and self.kind is not Kind.HIERARCHICAL:
            raise ValueError(f"a {self.kind} layer has no far state, so none of {self.far}")
        if self.selector is not Selector.QUEST and not self.selects:
            raise ValueError(f"a {self.kind} layer selects nothing, so nothing by {self.selector}")
        if self.forgets and self.far is not Far.CENTROID:
            raise ValueError("a hierarchical layer selects pages, or sees centroids of all")
        if self.forgets and self.dense_pages:
            raise ValueError("a layer that selects nothing keeps no pages to see all of")
        if self.on_host and self.kind is not Kind.HYBRID:
            raise ValueError(f"the pages of a {self.kind} layer do not lie on the host")
        if self.on_host and self.selector is not Selector.QUEST:
            raise ValueError(f"pages on the host are not selected by {self.selector}")

    @property
    def selects(self) -> bool:
        """True where pages are chosen by what they hold."""
        return self.kind is Kind.HYBRID or (
            self.kind is Kind.HIERARCHICAL and self.selected_pages > 0
        )

    @property
    def forgets(self) -> bool:
        """True where what stands for a page is all that is kept of it behind the window."""
        return self.kind is Kind.HIERARCHICAL and self.selected_pages == 0

    @property
    def numbered(self) -> bool:
        """True where what is looked at behind the window is found by a page's number."""
        return self.forgets or self.on_host

    @property
    def has_centroids(self) -> bool:
        """True where the means of pages are looked at."""
        return self.far is Far.CENTROID

    @property
    def drops(self) -> bool:
        """True where pages between the first and the last are never seen again."""
        return self.kind is Kind.WINDOW or self.forgets

    def first_window_page(self, page: int) -> int:
        """Where the window begins for queries in ``page``; never within the prefix."""
        if self.kind is Kind.FULL:
            return 0
        return max(min(self.prefix_pages, page), page - self.window_pages)

    def depth(self, position: int, page_tokens: int) -> int:
        """About how many keys a query of a document sees; what its attention costs."""
        if self.kind is Kind.FULL or position < self.dense_pages * page_tokens:
            return position
        pages = self.prefix_pages + self.window_pages + self.selected_pages
        far = position // CENTROID_TOKENS if self.has_centroids else 0
        return min(position, pages * page_tokens + far)

    def candidates(self, page: int) -> range:
        """Pages that queries in ``page`` may select, or see what stands for them."""
        if self.kind not in (Kind.HYBRID, Kind.HIERARCHICAL):
            return range(0)
        return range(min(self.prefix_pages, page), self.first_window_page(page))


FULL = LayerPolicy()


@dataclass(frozen=True, slots=True)
class ModelPolicy:
    """The policies of a model's layers, and what follows from them for its pages.

    Attributes:
        name: how requests ask for it.
        layers: one a layer; none at all: every layer sees everything.
        eight_bit: layers whose pages are stored in 8 bits where this is the worker's own policy.
        maps: digest of the feature maps of linear far states; empty where there are none.
    """

    name: str = "full"
    layers: tuple[LayerPolicy, ...] = ()
    eight_bit: frozenset[int] = frozenset()
    maps: str = ""

    @property
    def full(self) -> bool:
        """True where every layer sees everything."""
        return all(layer == FULL for layer in self.layers)

    @property
    def selects(self) -> bool:
        """True where some layer chooses its pages."""
        return any(layer.selects for layer in self.layers)

    @property
    def summarises(self) -> bool:
        """True where some layer looks at what is kept of pages when they are full."""
        return any(layer.far is not Far.NONE or layer.on_host for layer in self.layers)

    @property
    def linear_layers(self) -> frozenset[int]:
        """Layers that see far pages by linear attention."""
        return frozenset(i for i, layer in enumerate(self.layers) if layer.far is Far.LINEAR)

    @property
    def forgets(self) -> bool:
        """True where some layer keeps of a page only what stands for it."""
        return any(layer.forgets for layer in self.layers)

    @property
    def numbered(self) -> bool:
        """True where some layer finds by a page's number what it looks at."""
        return any(layer.numbered for layer in self.layers)

    @property
    def four_bit(self) -> frozenset[int]:
        """Layers whose keys are kept in 4 bits too."""
        found = (n for n, one in enumerate(self.layers) if one.selector is Selector.LOW_BIT)
        return frozenset(found)

    @property
    def dense_pages(self) -> int:
        """Pages from the start whose queries choose nothing, in any layer."""
        return min((layer.dense_pages for layer in self.layers if layer.selects), default=0)

    def layer(self, index: int) -> LayerPolicy:
        """The policy of one layer."""
        return self.layers[index] if self.layers else FULL

    def depth(self, position: int, page_tokens: int) -> int:
        """The same, on average over the layers."""
        if self.full:
            return position
        depths = [layer.depth(position, page_tokens) for layer in self.layers]
        return sum(depths) // len(depths)

    def identity(self) -> str:
        """Names what decides a page's contents, so that no two policies share pages by mistake.

        Two policies with one name in two releases differ in it.
        """
        if self.full:
            return "full"
        return ";".join(
            f"{count}*{layer.kind},{layer.prefix_pages},{layer.window_pages},"
            f"{layer.selected_pages},{layer.dense_pages}{_far(layer.far, self.maps)}"
            f"{_selector(layer.selector)}"
            f"{',host' if layer.on_host else ''}"
            for layer, count in self._runs()
        )

    def _runs(self) -> list[tuple[LayerPolicy, int]]:
        return [(layer, len(list(same))) for layer, same in groupby(self.layers)]


def _selector(selector: Selector) -> str:
    return "" if selector is Selector.QUEST else f",{selector}"


def _far(far: Far, maps: str) -> str:
    match far:
        case Far.NONE:
            return ""
        case Far.CENTROID:
            return f",{far}/{CENTROID_TOKENS}"
        case Far.LINEAR:
            return f",{far}/{maps}"


FULL_MODEL = ModelPolicy()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy for any model.

    Attributes:
        name: how requests ask for it.
        layer: of all layers but the first.
        full_layers: share of the layers, the first ones, that see everything: they spread
            what the later ones look for (TriangleMix, arXiv:2507.21526).
        eight_bit: the pages of those are stored in 8 bits.
    """

    name: str
    layer: LayerPolicy
    full_layers: float = 0.0
    eight_bit: bool = False

    @property
    def stores(self) -> bool:
        """True where the policy decides what is stored: only a worker started with it has it."""
        kept = self.layer.selector is Selector.LOW_BIT
        return self.eight_bit or self.layer.numbered or kept

    def of(self, layers: int) -> ModelPolicy:
        """The policy of a model with so many layers.

        A full one names no layer: it is asked about in every step, and has nothing to look up.
        """
        if self.layer == FULL:
            return ModelPolicy(self.name)
        full = ceil(self.full_layers * layers)
        return ModelPolicy(
            self.name,
            (FULL,) * full + (self.layer,) * (layers - full),
            frozenset(range(full)) if self.eight_bit else frozenset(),
        )


HYBRID = LayerPolicy(
    kind=Kind.HYBRID, prefix_pages=1, window_pages=4, selected_pages=8, dense_pages=64
)

PRESETS = {
    policy.name: policy
    for policy in (
        Policy("full", FULL),
        Policy("window", LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=4)),
        Policy("hybrid", HYBRID, full_layers=0.25),
        Policy(
            "hierarchical",
            replace(HYBRID, kind=Kind.HIERARCHICAL, prefix_pages=8, far=Far.CENTROID),
            full_layers=0.25,
        ),
        Policy("hybrid-exact", replace(HYBRID, selector=Selector.EXACT), full_layers=0.25),
        Policy("hybrid-4bit", replace(HYBRID, selector=Selector.LOW_BIT), full_layers=0.25),
        Policy("hybrid-host", replace(HYBRID, on_host=True), full_layers=0.25),
        Policy(
            "summary",
            LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=8, window_pages=8, far=Far.CENTROID),
        ),
        Policy(
            "lean",
            LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=8),
            full_layers=0.25,
            eight_bit=True,
        ),
    )
}
"""The policies that requests may name."""

LINEAR = Policy(
    "hierarchical-linear",
    replace(PRESETS["hierarchical"].layer, far=Far.LINEAR),
    full_layers=PRESETS["hierarchical"].full_layers,
)
"""An experiment, served only with feature maps that were distilled from the model."""
