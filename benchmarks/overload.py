"""Ten times the load that a server can take: what it still answers, and how soon it refuses.

The capacity is measured first, by clients that each wait for their answer. Then requests arrive
at ten times that rate whether or not earlier ones were answered. Some requests end as
INTERNAL ("Internal error from Core"), probably the client library's word for a write that meets a
refusal: they count as other ends, not as refusals. The encoder is the hash worker
of the tests with a fixed time a step, so that the server's own behaviour is measured, not a
model's.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks.probing import milliseconds, percentile
from benchmarks.server_process import MIB, NO_RESULTS, RunningServer, started
from longspan.v1 import inference_service_pb2 as pb
from longspan.v1 import inference_service_pb2_grpc, upload_pb2

CLIENTS = 24
WARM_S = 3.0
CAPACITY_S = 15.0
OVERLOAD_S = 40.0
FACTOR = 10
DEADLINE_S = 20.0
REQUESTS = 32
STEP_S = 0.2
SENTENCES = 24
SAMPLE_S = 0.2

_numbers = itertools.count()


@dataclass
class Outcomes:
    """What became of requests.

    Attributes:
        answered: seconds that each answer took.
        rejected: seconds until each refusal.
        others: any other end, by status.
        without_details: refusals that do not say when to come back.
        peak_bytes: most memory of the server.
    """

    answered: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    without_details: int = 0
    peak_bytes: int = 0


def messages() -> list[pb.AnalyzeRequest]:
    """A document of its own, and a question."""
    number = next(_numbers)
    text = "".join(f"Clause {place} of {number} says so. " for place in range(SENTENCES)).encode()
    header = pb.AnalyzeHeader(
        upload=upload_pb2.UploadHeader(declared_bytes=len(text)),
        task=pb.Task(ask=pb.Ask(question="What does clause 3 say?", max_citations=1)),
    )
    commit = upload_pb2.Commit(length=len(text), sha256=hashlib.sha256(text).hexdigest())
    return [
        pb.AnalyzeRequest(header=header),
        pb.AnalyzeRequest(chunk=upload_pb2.Chunk(offset=0, data=text)),
        pb.AnalyzeRequest(commit=commit),
    ]


async def request(stub: Any, outcomes: Outcomes) -> None:
    """One request to its end."""
    began = time.perf_counter()
    call = stub.Analyze(timeout=DEADLINE_S)
    try:
        await converse(call)
    except grpc.aio.AioRpcError:
        took = time.perf_counter() - began
        # A write that meets a refusal raises another status than the server's.
        code = await call.code()
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            outcomes.rejected.append(took)
            trailers = dict(await call.trailing_metadata() or ())
            outcomes.without_details += "grpc-status-details-bin" not in trailers
        else:
            outcomes.others[code.name] += 1
    else:
        outcomes.answered.append(time.perf_counter() - began)


async def converse(call: Any) -> None:
    """Send the document once the header is accepted; hear the answer."""
    header, *rest = messages()
    await call.write(header)
    while (event := await call.read()) is not grpc.aio.EOF:
        if event.WhichOneof("event") == "accepted":
            for message in rest:
                await call.write(message)


async def closed_loop(stub: Any, seconds: float) -> float:
    """Answers a second, each client waiting for its own before it asks again."""
    outcomes, end = Outcomes(), time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await request(stub, outcomes)

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return len(outcomes.answered) / (time.monotonic() - began)


async def open_loop(
    stub: Any, server: RunningServer, rate: float, seconds: float
) -> tuple[Outcomes, float]:
    """Requests at a rate, whatever becomes of them; outcomes, and answers a second meanwhile."""
    outcomes, running = Outcomes(), set[asyncio.Task[None]]()
    began = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        task = asyncio.create_task(request(stub, outcomes))
        running.add(task)
        task.add_done_callback(running.discard)
        if number % max(int(rate * SAMPLE_S), 1) == 0:
            outcomes.peak_bytes = max(outcomes.peak_bytes, server.rss_bytes)
    goodput = len(outcomes.answered) / (time.monotonic() - began)
    await asyncio.gather(*running)
    return outcomes, goodput


async def measure(server: RunningServer) -> list[dict[str, object]]:
    """One row."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        await closed_loop(stub, WARM_S)
        capacity = await closed_loop(stub, CAPACITY_S)
        before = server.rss_bytes
        outcomes, goodput = await open_loop(stub, server, FACTOR * capacity, OVERLOAD_S)
        after = await closed_loop(stub, WARM_S)
    row = {
        "worker": f"hash, {STEP_S:g} s a step",
        "capacity/s": round(capacity, 1),
        "offered/s": round(FACTOR * capacity, 1),
        "answered/s": round(goodput, 1),
        "goodput %": round(100 * goodput / capacity),
        "answer p50 s": round(percentile(outcomes.answered, 0.5), 2),
        "answer max s": round(max(outcomes.answered, default=0.0), 2),
        "refused": len(outcomes.rejected),
        "refusal p50 ms": milliseconds(percentile(outcomes.rejected, 0.5)),
        "refusal p99 ms": milliseconds(percentile(outcomes.rejected, 0.99)),
        "without RetryInfo": outcomes.without_details,
        "other ends": dict(outcomes.others),
        "server MiB before": before // MIB,
        "server MiB at most": outcomes.peak_bytes // MIB,
        "answered/s afterwards": round(after, 1),
    }
    return [row]


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    command = [sys.executable, "-m", "benchmarks.quick_server", "--step-s", str(STEP_S), "--"]
    command += ["--limits.requests", str(REQUESTS), "--log-level", "warning", *NO_RESULTS]
    with tempfile.TemporaryDirectory() as folder, started(command, Path(folder)) as server:
        return asyncio.run(measure(server))


if __name__ == "__main__":
    print(main())
