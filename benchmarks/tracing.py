"""What tracing costs a small call: off, on, and with a collector that is down or never answers."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import psutil

from benchmarks.server_process import server_process
from longspan.v1 import document_service_pb2 as pb
from longspan.v1 import document_service_pb2_grpc

CALLS = 3_000
WARM_UP = 300
ROUNDS = 3
SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@contextmanager
def nowhere() -> Iterator[str]:
    """Tracing is off."""
    yield ""


@contextmanager
def collector() -> Iterator[str]:
    """Takes everything and keeps nothing."""

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    server = grpc.server(ThreadPoolExecutor(1))
    handler: Any = grpc.unary_unary_rpc_method_handler(export)
    generic = grpc.method_handlers_generic_handler(SERVICE, {"Export": handler})
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextmanager
def closed() -> Iterator[str]:
    """A port that nobody listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def silent() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


COLLECTORS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "off": nowhere,
    "on": collector,
    "collector down": closed,
    "collector silent": silent,
}


async def measure(port: int, server: psutil.Process) -> tuple[float, float]:
    """Microseconds of one ListDocuments on an empty library, one after the other.

    The server's processor time of each, which a busy machine changes little, and the median
    of what the caller waits.
    """
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
        times = []
        for number in range(WARM_UP + CALLS):
            if number == WARM_UP:
                before_s = _cpu_s(server)
            started = time.perf_counter()
            await stub.ListDocuments(pb.ListDocumentsRequest())
            times.append((time.perf_counter() - started) * 1e6)
        spent_s = _cpu_s(server) - before_s
    return spent_s / CALLS * 1e6, statistics.median(times[WARM_UP:])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def round_of(name: str) -> tuple[float, float]:
    """One server with one collector."""
    with COLLECTORS[name]() as endpoint:
        flags = ("--tracing.endpoint", endpoint) if endpoint else ()
        with server_process("--encoder", "none", *flags) as port:
            [server] = psutil.Process().children()
            return asyncio.run(measure(port, server))


def main() -> list[dict[str, object]]:
    """Each collector in turn, several rounds; the best round counts."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COLLECTORS}
    for _ in range(ROUNDS):
        for name in COLLECTORS:
            found[name].append(round_of(name))
    return [
        {"tracing": name, "CPU µs": round(min(times)[0]), "median µs": round(min(times)[1])}
        for name, times in found.items()
    ]


if __name__ == "__main__":
    for row in main():
        print(row)
