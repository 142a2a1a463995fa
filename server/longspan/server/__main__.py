"""``longspan serve`` and ``longspan-server``: one server process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from longspan.server.aio import cancel_and_wait
from longspan.server.config import Config, load_config
from longspan.server.errors import ConfigError, ServingFailed
from longspan.server.grpc_core import prepare_grpc_core
from longspan.server.logs.setup import log_to_stderr

if TYPE_CHECKING:
    from longspan.server.app import Server

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_FORCED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    try:
        config = load_config(sys.argv[1:] if arguments is None else arguments)
        log_to_stderr(config.log_level, config.log_format)
        prepare_grpc_core()
        return _run(config)
    except ConfigError as error:
        print(f"longspan serve: {error}", file=sys.stderr)
        return EXIT_CONFIG


def _run(config: Config) -> int:
    if sys.platform == "win32":
        return asyncio.run(_serve(config))
    import uvloop

    return uvloop.run(_serve(config))


async def _serve(config: Config) -> int:
    stop = asyncio.Event()
    with _signals(stop):
        started = asyncio.Event()
        serving = asyncio.create_task(_serve_until(config, stop, started))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not started.is_set() and not serving.done():
            # Nobody has been served yet: there is nothing to drain.
            await cancel_and_wait(serving)
            return 0
        await serving
    return 0


async def _serve_until(config: Config, stop: asyncio.Event, started: asyncio.Event) -> None:
    # Imported here so that --help and configuration errors answer at once.
    from longspan.server.app import running_server
    from longspan.server.collector import collect_rarely

    async with running_server(config) as server:
        started.set()
        collect_rarely()
        _announce(config, server.port)
        watching = asyncio.create_task(_end_with(server))
        await stop.wait()
        log.info("draining for at most %g s", config.drain_s)
        await server.drain()
        await cancel_and_wait(watching)


async def _end_with(server: Server) -> None:
    """Watch a server until cancelled, and end the process with it when it fails.

    At once: calls that are open would hold it up for as long as they like. What was acknowledged
    is on the disk, and workers end with our pipes.
    """
    try:
        await server.failure()
    except ServingFailed as error:
        log.critical("ending: %s", error)
        logging.shutdown()
        os._exit(EXIT_FAILED)


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def handle() -> None:
        if stop.is_set():
            # Asked twice: the caller does not want to wait. Workers end with our pipes.
            os._exit(EXIT_FORCED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _announce(config: Config, port: int) -> None:
    log.info("serving on port %d", port)
    if config.ready_file is not None:
        aside = config.ready_file.with_name(f"{config.ready_file.name}.tmp")
        aside.write_text(json.dumps({"port": port}), "utf-8")
        aside.replace(config.ready_file)


if __name__ == "__main__":
    sys.exit(main())
