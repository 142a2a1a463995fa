"""Our engine without its server: commands in, tokens out, in a process with nothing else in it.

    python -m benchmarks.generation_engine FOLDER DTYPE DEVICE [FLAGS OF THE WORKER…]

Runs the worker's own decoder, workload and loop; only the transport is left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve
from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.__main__ import parse
from longspan.worker.allocator import one_arena
from longspan.worker.generation.serving import serve_decoder
from longspan.worker.options import WorkerOptions
from longspan.worker.served import Served, nobody
from longspan.worker.workload import Workload

TENANT = "benchmark"


class Driver:
    """Runs steps until all sequences have ended."""

    def __init__(self, workload: Workload[Any, Any]) -> None:
        self.workload = workload
        self._ids = count(1)

    def open(
        self, prompt: Sequence[int], new_tokens: int, *, attention: str = "", task_start: int = 0
    ) -> int:
        """Open a sealed sequence that is sampled greedily; returns its id."""
        job_id = next(self._ids)
        command = pb.Open(
            job_id=job_id,
            tenant=TENANT,
            prompt=np.array(prompt, "<u4").tobytes(),
            sealed=True,
            sampling=pb.Sampling(max_tokens=new_tokens, top_p=1.0),
            priority=2,
            attention=attention,
            task_start=task_start,
        )
        refused = self.workload.handle(pb.ExecuteRequest(open=command), time.monotonic())
        if refused:
            raise RuntimeError(str(refused))
        return job_id

    def steps(self) -> Iterator[list[pb.Event]]:
        """The events of each step, until nothing is left."""
        while self.workload.jobs:
            plan = self.workload.plan(time.monotonic())
            before = self.workload.events()
            if plan is None:
                yield before
                continue
            result = self.workload.run(plan)
            yield [*before, *self.workload.commit(plan, result)]

    def answer(self, work: Work) -> list[Answer]:
        """Requests that arrive at once."""
        started = time.perf_counter()
        clocks = {self.open(prompt, work.new_tokens): Clock(started) for prompt in work.prompts}
        for events in self.steps():
            for event in events:
                self._count(clocks, event)
        return [clock.answer() for clock in clocks.values()]

    @staticmethod
    def _count(clocks: dict[int, Clock], event: pb.Event) -> None:
        match event.WhichOneof("kind"):
            case "generated":
                for token in np.frombuffer(event.generated.tokens, "<u4").tolist():
                    clocks[event.generated.job_id].token(token)
            case "failed":
                raise RuntimeError(event.failed.message)


def decoder(folder: str, dtype: str, device: str, *flags: str) -> Served:
    """Load a decoder as the server's worker does, from the same command line."""
    command = ["--role", "decoder", "--model", folder, "--dtype", dtype, "--device", device]
    parsed = parse([*command, "--socket", "unused", *flags])
    return serve_decoder(WorkerOptions.of(vars(parsed)))


def start(arguments: Sequence[str]) -> Engine:
    """Load the decoder."""
    folder, dtype, device, *flags = arguments
    return Driver(decoder(folder, dtype, device, *flags).open(nobody)).answer


if __name__ == "__main__":
    one_arena()
    serve(start)
