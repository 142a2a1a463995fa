"""What watching costs: the same work with metrics, and with traces too, against without.

    python -m benchmarks observability

Three servers with a tiny random decoder run side by side and are given the same work in turns, one
piece each, so that whatever else the machine does meets all of them alike. Metrics are scraped
every 15 s, as by the PodMonitor in k8s/; traces go to a collector that takes and forgets them.

Times are means without the slowest fiftieth. What goes on behind the calls (the export of spans,
scrapes) meets the other servers' calls too; CPU seconds have it: they are those of a server and its
workers, up to when its last spans are out, without what they take while there is nothing to do.
"""

from __future__ import annotations

import asyncio
import math
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import psutil

from benchmarks.generation_models import TINY, write_model
from benchmarks.generation_overlap import Texts
from benchmarks.server_process import NO_RESULTS, RunningServer, running
from benchmarks.span_sink import span_sink
from longspan.client import Ask, AsyncClient, Generation

PARTS = 10
"""Of a measurement; how they differ is its error."""
WARM_UP = 5
SHORT_TOKENS, NEW_TOKENS, LONG_BYTES = 300, 4000, 32 << 20
SHORT_ANSWER, ANSWER = (Generation(max_tokens=count, temperature=0) for count in (8, 32))
SCRAPE_S = 15.0
IDLE_S = 20.0
SLOWEST = 0.02
LAST_SPANS_S = 1.3
"""Until a batch that is not full has been sent."""
FLAGS = ("--encoder", "none", "--kv-memory", "256MiB", "--kv-disk", "0", "--dtype", "float32")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives one server its work.

    Attributes:
        document: a short one that is stored and whose pages are there.
        prose: of a new document.
    """

    client: AsyncClient
    document: str
    prose: bytes

    async def look_up(self, number: int) -> None:
        """A call that does next to nothing."""
        await self.client.get(self.document)

    async def ask(self, number: int) -> None:
        """An answer of 8 tokens."""
        question = f"What of {number}?"
        async with self.client.ask(self.document, question, generation=SHORT_ANSWER) as stream:
            await stream.result()

    async def read(self, number: int) -> None:
        """A new document, streamed up and read, and an answer of 32 tokens."""
        data = f"Document {number}.\n".encode() + self.prose
        async with self.client.analyze(data, Ask("What of it?", generation=ANSWER)) as stream:
            await stream.result()

    async def upload(self, number: int) -> None:
        """A long document that nobody reads."""
        line = f"Upload {number}: the quick brown fox jumps over the lazy dog, again and again.\n"
        data = (line.encode() * (LONG_BYTES // len(line) + 1))[:LONG_BYTES]
        await self.client.delete((await self.client.upload(data)).document_id)


Work = Callable[[Caller, int], Awaitable[None]]

WORK: Mapping[str, tuple[Work, int]] = {
    "new document of 4,000 tokens, answer of 32": (Caller.read, 40),
    "upload of 32 MiB": (Caller.upload, 80),
    "look-up": (Caller.look_up, 6000),
    "answer of 8 tokens by a tiny model": (Caller.ask, 600),
}
"""Kinds of work, and how often each server does it."""


def variants(scraped: Sequence[int], collector: str) -> dict[str, Sequence[str]]:
    """Flags of each server, by its column."""
    one, other = (("--metrics.listen", f"127.0.0.1:{port}") for port in scraped)
    return {
        "off": (),
        "metrics": one,
        "metrics and traces": (*other, "--tracing.endpoint", collector),
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """What one server did of one kind of work.

    Attributes:
        times_s: of each piece.
    """

    times_s: Sequence[float]
    cpu_s: float


async def measure(servers: Mapping[str, RunningServer]) -> dict[str, dict[str, Figures]]:
    """All figures, by work and server."""
    callers = {name: await caller(server) for name, server in servers.items()}
    idle = await idle_cpu(servers)
    found = {}
    for title, (work, count) in WORK.items():
        for one in callers.values():
            for number in range(WARM_UP):
                await work(one, -1 - number)
        before = {name: cpu_s(server.process) for name, server in servers.items()}
        started = time.perf_counter()
        times = await in_turns(callers, work, count)
        await asyncio.sleep(LAST_SPANS_S)
        taken_s = time.perf_counter() - started
        found[title] = {
            name: Figures(times[name], cpu_s(server.process) - before[name] - idle[name] * taken_s)
            for name, server in servers.items()
        }
    for one in callers.values():
        await one.client.close()
    return found


async def idle_cpu(servers: Mapping[str, RunningServer]) -> dict[str, float]:
    """CPU seconds a second of servers that have nothing to do."""
    await asyncio.sleep(LAST_SPANS_S)
    before = {name: cpu_s(server.process) for name, server in servers.items()}
    await asyncio.sleep(IDLE_S)
    return {
        name: (cpu_s(server.process) - before[name]) / IDLE_S for name, server in servers.items()
    }


async def caller(server: RunningServer) -> Caller:
    """Store a short document."""
    client, texts = AsyncClient(server.target), Texts()
    stored = await client.upload(texts.take(SHORT_TOKENS))
    return Caller(client, stored.document_id, texts.take(NEW_TOKENS))


async def in_turns(callers: Mapping[str, Caller], work: Work, count: int) -> dict[str, list[float]]:
    """Seconds of each piece of work; who comes first changes."""
    names = list(callers)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(count):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            started = time.perf_counter()
            await work(callers[name], number)
            times[name].append(time.perf_counter() - started)
    return times


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds of a server and its workers so far."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    total: float = sum(one.user + one.system for one in times)
    return total


def rows_of(found: Mapping[str, Mapping[str, Figures]]) -> list[dict[str, object]]:
    """Times and CPU seconds, beside those of the server that is not watched."""
    rows = []
    for title, figures in found.items():
        off = figures["off"]
        count = len(off.times_s)
        for name, on in figures.items():
            rows.append(
                {
                    "work": title,
                    "times": count,
                    "watched by": "nobody" if name == "off" else name,
                    "ms": round(1000 * usual(on.times_s), 3),
                    "time / off": round(usual(on.times_s) / usual(off.times_s), 4),
                    "error": round(error_of(on.times_s, off.times_s), 4),
                    "CPU ms each": round(1000 * on.cpu_s / count, 3),
                    "CPU / off": round(on.cpu_s / off.cpu_s, 4),
                }
            )
    return rows


def usual(times_s: Sequence[float]) -> float:
    """The mean without the slowest."""
    return mean(sorted(times_s)[: max(1, round(len(times_s) * (1 - SLOWEST)))])


def error_of(on: Sequence[float], off: Sequence[float]) -> float:
    """The standard error of the ratio, from those of its parts."""
    size = len(on) // PARTS
    ratios = [
        usual(on[at : at + size]) / usual(off[at : at + size])
        for at in range(0, size * PARTS, size)
    ]
    return stdev(ratios) / math.sqrt(PARTS)


@contextmanager
def scraping(ports: Sequence[int]) -> Iterator[None]:
    """Scrape as Prometheus does."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(SCRAPE_S):
            for port in ports:
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
    """Run the measurement; a row for each kind of work and server."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = ("--model", str(write_model(TINY, Path(folder))), *FLAGS)
        scraped = (free_port(), free_port())
        flags = variants(scraped, stack.enter_context(span_sink()))
        servers = {
            name: stack.enter_context(running(*NO_RESULTS, *model, *more))
            for name, more in flags.items()
        }
        stack.enter_context(scraping(scraped))
        return rows_of(asyncio.run(measure(servers)))


if __name__ == "__main__":
    for line in main():
        print(line)
