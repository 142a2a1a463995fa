"""A worker that gets little of the processor is not taken for one that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.pool.harness import config, encode, expected, request, running, text, until

HOGS = 8 * (os.cpu_count() or 1)
LOAD_S = 3.0
# Ends by itself should the test be killed.
BURN = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    pass
"""


def burn() -> list[subprocess.Popen[bytes]]:
    """Eight processes for each core."""
    return [subprocess.Popen([sys.executable, "-c", BURN, str(LOAD_S)]) for _ in range(HOGS)]


async def test_no_worker_is_killed_for_a_busy_machine_and_one_that_hangs_still_is() -> None:
    async with running(config("--step-s", "0.02", heartbeat_timeout_s=2.0)) as dispatcher:
        [before] = dispatcher.pids
        hogs = burn()
        try:
            while any(hog.poll() is None for hog in hogs):
                vectors = await encode(dispatcher, text(1, 2, 3), info=request())
                assert (vectors == expected(text(1, 2, 3))).all()
        finally:
            for hog in hogs:
                hog.kill()
                hog.wait()
        assert dispatcher.pids == [before]
        os.kill(before, signal.SIGSTOP)
        vectors = await encode(dispatcher, text(4), info=request())
        assert (vectors == expected(text(4))).all()
        await until(lambda: before not in dispatcher.pids)
