"""The worker's life: load, bind, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from longspan.internal.v1 import worker_service_pb2_grpc as pb_grpc
from longspan.worker.devices import set_threads
from longspan.worker.engine import Engine
from longspan.worker.failures import StartFailure, loading
from longspan.worker.limits import MESSAGE_BYTES
from longspan.worker.options import WorkerOptions
from longspan.worker.served import Served
from longspan.worker.service import WorkerService

_log = logging.getLogger(__name__)

STOP_GRACE_S = 1.0
SOCKET_PATH_BYTES = 107
"""Longest path of a unix socket on Linux."""


def run_worker(options: WorkerOptions) -> None:
    """Serve until SIGTERM.

    Raises:
        StartFailure: the worker cannot start as configured.
    """
    check_socket(options.socket)
    # One thread loads, checks and computes. Were there two, OpenMP would keep a team of threads
    # for each and let both sleep between products: a third of the time of a decode step.
    with ThreadPoolExecutor(1, "engine") as thread:
        served = thread.submit(load, options).result()
        asyncio.run(serve(options.socket, served, thread))


def load(options: WorkerOptions) -> Served:
    """Load what the role serves, and only the libraries that it needs.

    Raises:
        StartFailure: it cannot be loaded as configured, for whatever reason.
    """
    with loading():
        set_threads(options.threads)
        if options.role == "decoder":
            from longspan.worker.generation.serving import serve_decoder

            served = serve_decoder(options)
            if options.tracing_endpoint is None:
                return served
            from longspan.worker.tracing.opening import traced

            return traced(served, options.tracing_endpoint)
        from longspan.worker.encoding.serving import serve_encoder

        return serve_encoder(options)


async def serve(path: Path, served: Served, thread: Executor) -> None:
    """Bind the socket and serve until SIGTERM; the running step is finished first."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    engine: Engine[Any, Any] = Engine()
    service = WorkerService(engine, served)
    server = bind(path, service)
    engine.start(thread)
    await server.start()
    _log.info("serving %s on %s", served.ready.ready.model, served.ready.ready.device)
    await stop.wait()
    _log.info("stopping")
    await asyncio.to_thread(engine.stop)
    service.stop()
    await server.stop(STOP_GRACE_S)
    await asyncio.to_thread(served.close)


def bind(path: Path, service: WorkerService) -> grpc.aio.Server:
    """A server on the unix socket.

    Raises:
        StartFailure: the socket is in use or cannot be made.
    """
    check_socket(path)
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ]
    )
    pb_grpc.add_WorkerServiceServicer_to_server(service, server)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        raise StartFailure(f"socket {path} cannot be bound: {error}") from error
    return server


def check_socket(path: Path) -> None:
    """Refuse a path that somebody serves; a socket left behind by a dead process is fine.

    Raises:
        StartFailure: the path cannot become our socket.
    """
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise StartFailure(f"socket path {path} is longer than {SOCKET_PATH_BYTES} bytes")
    if not path.parent.is_dir():
        raise StartFailure(f"socket folder {path.parent} does not exist")
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise StartFailure(f"{path} exists and is not a socket")
    if _answers(path):
        raise StartFailure(f"socket {path} is in use")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0
