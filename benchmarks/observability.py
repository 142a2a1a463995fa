"""What watching costs: the same work with metrics, and with traces too, against without.

    python -m benchmarks observability

Servers with a tiny random decoder run side by side, and take turns in every round. Metrics are
scraped once a second, which is more often than anybody does; traces go to a collector that takes
and forgets them.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.generation_models import TINY, write_model
from benchmarks.generation_overlap import Texts
from benchmarks.server_process import server_process
from benchmarks.span_sink import span_sink
from longspan.client import AsyncClient, Generation
from longspan.server.config import Config

ROUNDS = 8
LOOKUPS, SHORT, LANES = 600, 48, 8
SHORT_TOKENS, LONG_BYTES = 300, 16 << 20
SCRAPE_S = 1.0
GREEDY = Generation(max_tokens=8, temperature=0)
FLAGS = ("--encoder", "none", "--kv-memory", "256MiB", "--kv-disk", "0", "--dtype", "float32")
Work = Callable[[AsyncClient, str, int], Awaitable[float]]


async def in_lanes(count: int, one: Callable[[int], Awaitable[object]]) -> float:
    """How many a second, of so many, a few at a time."""
    numbers = iter(range(count))

    async def lane() -> None:
        for number in numbers:
            await one(number)

    started = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(LANES)))
    return count / (time.perf_counter() - started)


async def look_up(client: AsyncClient, document: str, round_: int) -> float:
    """Calls a second that do next to nothing."""
    return await in_lanes(LOOKUPS, lambda _: client.get(document))


async def ask(client: AsyncClient, document: str, round_: int) -> float:
    """Answers a second of 8 tokens each, about a document whose pages are there."""

    async def one(number: int) -> None:
        async with client.ask(document, f"What of {number}?", generation=GREEDY) as stream:
            await stream.result()

    return await in_lanes(SHORT, one)


async def upload(client: AsyncClient, document: str, round_: int) -> float:
    """Megabytes a second of one long upload."""
    line = f"Round {round_}: the quick brown fox jumps over the lazy dog, again and again.\n"
    data = (line.encode() * (LONG_BYTES // len(line) + 1))[:LONG_BYTES]
    started = time.perf_counter()
    await client.delete((await client.upload(data)).document_id)
    return len(data) / 1e6 / (time.perf_counter() - started)


WORK: Mapping[str, Work] = {
    "look-ups a second": look_up,
    "short answers a second": ask,
    "long upload MB/s": upload,
}


def variants(metrics_port: int, collector: str) -> dict[str, Sequence[str]]:
    """Flags of each server, by its column; traces only where this version has them."""
    metrics = ("--metrics.listen", f"127.0.0.1:{metrics_port}")
    found: dict[str, Sequence[str]] = {"off": (), "metrics": metrics}
    if "tracing" in Config.model_fields:
        port = ("--metrics.listen", f"127.0.0.1:{free_port()}")
        found["metrics and traces"] = (*port, "--tracing.endpoint", collector)
    return found


async def measure(ports: Mapping[str, int]) -> dict[tuple[str, str], list[float]]:
    """All figures of all rounds, by work and variant."""
    figures: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    names = list(ports)
    clients = {name: AsyncClient(f"127.0.0.1:{port}") for name, port in ports.items()}
    documents = {}
    for name, client in clients.items():
        stored = await client.upload(Texts().take(SHORT_TOKENS))
        documents[name] = stored.document_id
        for work in WORK.values():  # to warm up
            await work(client, documents[name], -1)
    for round_ in range(ROUNDS):
        turn = round_ % len(names)
        for title, work in WORK.items():
            for name in (*names[turn:], *names[:turn]):
                figures[title, name].append(await work(clients[name], documents[name], round_))
    for client in clients.values():
        await client.close()
    return figures


def rows_of(
    figures: Mapping[tuple[str, str], list[float]], names: Sequence[str]
) -> list[dict[str, object]]:
    """Medians, and of each round's ratio to the one without too."""
    rows = []
    for title in WORK:
        off = figures[title, "off"]
        row: dict[str, object] = {"work": title, "rounds": len(off), "off": round(median(off), 1)}
        for name in names[1:]:
            ratios = [on / without for on, without in zip(figures[title, name], off, strict=True)]
            row[name] = round(median(figures[title, name]), 1)
            row[f"{name} / off"] = round(median(ratios), 3)
            row[f"{name}: least, most"] = f"{min(ratios):.3f}, {max(ratios):.3f}"
        rows.append(row)
    return rows


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Scrape as Prometheus would, but more often."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(SCRAPE_S):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> list[dict[str, object]]:
    """Run the measurement; one row a kind of work."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = ("--model", str(write_model(TINY, Path(folder))), *FLAGS)
        metrics_port = free_port()
        flags = variants(metrics_port, stack.enter_context(span_sink()))
        ports = {
            name: stack.enter_context(server_process(*model, *more)) for name, more in flags.items()
        }
        stack.enter_context(scraping(metrics_port))
        return rows_of(asyncio.run(measure(ports)), list(ports))


if __name__ == "__main__":
    for line in main():
        print(line)
