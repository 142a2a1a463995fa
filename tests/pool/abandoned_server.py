"""A server process to be killed: starts two workers and names them on standard output."""

from __future__ import annotations

import asyncio

from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from tests.pool.harness import config, until


async def main() -> None:
    """Start the workers, then wait for the end."""
    dispatcher = Dispatcher(config(workers=2), QueueLimits())
    dispatcher.start()
    await until(lambda: len(dispatcher.stats().in_flight) == 2)
    print(*dispatcher.pids, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
