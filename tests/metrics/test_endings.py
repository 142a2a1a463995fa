"""Callers whose deadline is too short are no failures of the server."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc

from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.generation import generating, hear, prompt
from tests.e2e.raw_calls import store
from tests.metrics.test_meters import value
from tests.pool.stories import stories

CLIENTS = 8
CALLS = 10
DEADLINE_S = 0.03
ENDED = "longspan_rpc_duration_seconds_count"
GENERATE = "longspan.v1.InferenceService/Generate"


async def test_a_deadline_that_passes_before_its_status_leaves_is_one(tmp_path: Path) -> None:
    async with generating(tmp_path, stories("--step-s", "0.005")) as running:
        document = await store(running, b"The fee is due on Monday.\n" * 40)
        task = prompt(max_tokens=400, seed=1)
        request = pb.GenerateRequest(document_ids=[document.document_id], task=task)

        async def client() -> None:
            for _ in range(CALLS):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await hear(running.inference.Generate(request, timeout=DEADLINE_S))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        await running.settled()
        metrics = running.server.application.metrics
        started = value(metrics, "longspan_rpc_started_total", method=GENERATE)
        late = value(metrics, ENDED, method=GENERATE, status="DEADLINE_EXCEEDED")
        assert late == value(metrics, ENDED, method=GENERATE) == started > 0
