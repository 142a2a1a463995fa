"""Who may start a request: identity, deadline, and the bound on requests at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from longspan.server.errors import Draining, QueueFull
from longspan.server.identity import TENANT_KEY, Tenant, resolve_tenant
from longspan.server.limits import Limits
from longspan.server.metrics.requests import RequestMetrics
from longspan.server.queue.job import RequestId

RETRY_S = 1.0
DRAIN_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted call.

    Attributes:
        deadline_s: on the event loop's clock; None when the caller set none.
        arrived_s: likewise.
    """

    request_id: RequestId
    tenant: Tenant
    deadline_s: float | None
    arrived_s: float


class Admission:
    """Counts calls; refuses at once when the server is full or shutting down.

    Attributes:
        active: calls admitted and not finished.
    """

    def __init__(
        self, limits: Limits, metrics: RequestMetrics, *, trust_tenant_metadata: bool
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._trusted = trust_tenant_metadata
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.active = 0

    async def drain(self, timeout_s: float) -> bool:
        """Refuse every call from now on, wait for the admitted; False if they took too long."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    @contextmanager
    def enter(self, context: grpc.aio.ServicerContext[Any, Any]) -> Iterator[Call]:
        """Admit one call for the length of the block.

        Raises:
            Draining, QueueFull: not now.
            InvalidRequest: the caller's tenant is malformed.
        """
        if self._draining:
            raise Draining("the server is shutting down", retry_after_s=DRAIN_RETRY_S)
        if self.active >= self._limits.requests:
            raise QueueFull(
                f"{self.active} requests are being served; at most {self._limits.requests}",
                retry_after_s=RETRY_S,
            )
        call = self._call(context)
        self.active += 1
        self._metrics.active.inc()
        self._idle.clear()
        try:
            yield call
        finally:
            self.active -= 1
            self._metrics.active.dec()
            if self.active == 0:
                self._idle.set()

    def _call(self, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        now_s = asyncio.get_running_loop().time()
        remaining_s = context.time_remaining()
        metadata = dict(context.invocation_metadata() or ())
        claimed = metadata.get(TENANT_KEY)
        return Call(
            request_id=RequestId(f"req_{uuid.uuid4().hex}"),
            tenant=resolve_tenant(None if claimed is None else str(claimed), trusted=self._trusted),
            deadline_s=None if remaining_s is None else now_s + remaining_s,
            arrived_s=now_s,
        )
