"""A whole server whose encoder is the tests' hash worker: everything but the model's own work.

python -m benchmarks.quick_server --step-s 0.05 -- --listen 127.0.0.1:0 --data-dir DIR
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from longspan.server.app import running_server
from longspan.server.collector import collect_rarely
from longspan.server.config import Config, load_config
from longspan.server.pool.config import PoolConfig

WORKER = Path(__file__).resolve().parents[1] / "tests" / "pool" / "hash_worker.py"


async def serve(config: Config, pool: PoolConfig) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_server(config, pool) as server:
        collect_rarely()
        assert config.ready_file is not None
        aside = config.ready_file.with_suffix(".tmp")
        aside.write_text(json.dumps({"port": server.port}))
        aside.replace(config.ready_file)
        await stop.wait()


def main() -> None:
    """Run one server."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step-s", default="0.05", help="of a batch of jobs")
    parser.add_argument("--batch", default="4", help="jobs in a step")
    parser.add_argument("--window-tokens", type=int, default=4096)
    options, rest = parser.parse_known_args()
    worker = [sys.executable, str(WORKER), "--step-s", options.step_s, "--batch", options.batch]
    pool = PoolConfig(
        command=lambda path, slot: [*worker, "--socket", str(path)],
        workers=1,
        window_tokens=options.window_tokens,
    )
    config = load_config([argument for argument in rest if argument != "--"])
    import uvloop

    uvloop.run(serve(config, pool))


if __name__ == "__main__":
    main()
