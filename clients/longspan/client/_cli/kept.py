"""What the server keeps of documents, as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from longspan.client._cache_types import (
    Breaker,
    CacheCleared,
    CacheStats,
    CacheVerified,
    KvTierStats,
    ResultCacheStats,
    WorkerStats,
)
from longspan.client._types import Document, KvHolding

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_NAME_CHARS = 28
_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))

_WIDTHS = f"{{:<28}}  {{:<{_NAME_CHARS}}}  {{:>9}}  {{:>9}}  {{:<24}}  {{:>6}}  {{:>6}}"
DOCUMENTS_HEAD = _WIDTHS.format("id", "name", "size", "tokens", "KV pages", "used", "hits")


def document_row(document: Document) -> str:
    """A line below ``DOCUMENTS_HEAD``: where its KV pages lie, and how long ago they were used."""
    kv = document.kv
    name = " ".join(document.title.split())
    return _WIDTHS.format(
        document.document_id,
        name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 1]}…",
        size_text(document.size_bytes),
        f"{document.tokens:,}" if document.tokens else "-",
        _places(kv),
        "-" if kv is None or kv.age_s is None else age_text(kv.age_s),
        "-" if kv is None else f"{kv.hits:,}",
    )


def kept_text(kv: KvHolding | None) -> str:
    """Where pages lie, in full."""
    if kv is None:
        return "not known"
    used = "" if kv.age_s is None else f", used {age_text(kv.age_s)} ago"
    return f"{_places(kv)}; {size_text(kv.disk_bytes)} of disk, {kv.hits:,} hits{used}"


def stats_lines(stats: CacheStats) -> Iterator[str]:
    """What is kept, for all workers and for each."""
    if stats.answers is not None:
        yield from _answer_lines(stats.answers)
    if stats.kv is None or stats.held is None:
        yield "no KV pages: the server has no decoder, or no worker of it is ready"
        return
    yield from _tier_lines(stats.kv)
    if len(stats.workers) > 1 or any(worker.kv is None for worker in stats.workers):
        yield from (_worker_line(worker) for worker in stats.workers)
    yield f"{'yours':<10}{_places(stats.held)}; {stats.held.hits:,} hits"


def verified_line(verified: CacheVerified) -> str:
    """What was found on disk."""
    return (
        f"{verified.checked:,} files read, {size_text(verified.bytes)}; {verified.damaged:,} "
        f"damaged and {verified.unknown:,} unknown removed, {verified.missing:,} missing"
    )


def cleared_line(cleared: CacheCleared) -> str:
    """What was dropped."""
    pages = f"{cleared.pages:,} pages dropped, {size_text(cleared.bytes)} of disk"
    return f"{pages}; {cleared.answers:,} answers dropped"


def size_text(size_bytes: int) -> str:
    """A size with three digits or so."""
    size, unit = float(size_bytes), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} bytes" if unit == 0 else f"{size:.3g} {_UNITS[unit]}"


def age_text(seconds: float) -> str:
    """A length of time in its largest unit."""
    size, name = next((one for one in _AGES if seconds >= one[0]), _AGES[-1])
    return f"{seconds / size:.0f} {name}"


def _places(kv: KvHolding | None) -> str:
    if kv is None:
        return "-"
    places = (
        (kv.pool_pages, "pool"),
        (kv.ram_pages, "RAM"),
        (kv.disk_pages, "disk"),
    )
    return ", ".join(f"{pages:,} {place}" for pages, place in places if pages) or "none"


def _tier_lines(kv: KvTierStats) -> Iterator[str]:
    yield f"{'RAM':<10}{size_text(kv.ram_bytes)} of {size_text(kv.ram_budget_bytes)}"
    disk = f"{size_text(kv.disk_bytes)} of {size_text(kv.disk_budget_bytes)}"
    yield f"{'disk':<10}{disk}, {kv.disk_pages:,} pages; breaker {_words(kv.breaker)}"
    yield f"{'pages':<10}{_done(kv)}"
    misses = ", ".join(f"{count:,} {reason}" for reason, count in sorted(kv.misses.items()))
    yield f"{'misses':<10}{misses or 'none'}"


def _worker_line(worker: WorkerStats) -> str:
    if worker.kv is None:
        return f"{worker.name:<10}does not answer"
    kv = worker.kv
    return (
        f"{worker.name:<10}{size_text(kv.ram_bytes)} RAM; {_done(kv)}; breaker {_words(kv.breaker)}"
    )


def _done(kv: KvTierStats) -> str:
    done = f"{kv.loaded_pages:,} loaded, {kv.stored_pages:,} stored, {kv.evicted_pages:,} evicted"
    return f"{done} since the start"


def _answer_lines(answers: ResultCacheStats) -> Iterator[str]:
    found = ", ".join(f"{count:,} {place}" for place, count in sorted(answers.hits.items()))
    hits = f"{sum(answers.hits.values()):,} hits" + (f" ({found})" if found else "")
    yield f"{'answers':<10}{hits}, {answers.misses:,} misses, {answers.stored:,} stored"
    places = [f"{size_text(answers.memory_bytes)} of memory"]
    if answers.disk_breaker is not Breaker.UNKNOWN:
        disk = f"{size_text(answers.disk_bytes)} of {size_text(answers.disk_budget_bytes)} disk"
        places.append(f"{disk}, breaker {_words(answers.disk_breaker)}")
    if answers.redis_breaker is not Breaker.UNKNOWN:
        places.append(f"Redis, breaker {_words(answers.redis_breaker)}")
    yield f"{'':<10}{'; '.join(places)}"


def _words(breaker: Breaker) -> str:
    return breaker.value.replace("_", " ")
