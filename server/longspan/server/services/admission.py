"""Who may start a request: identity, deadline, and the bound on requests at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from longspan.server.auth.authenticator import Authenticator
from longspan.server.auth.refusals import Refusals
from longspan.server.current_call import known_as
from longspan.server.errors import Draining, QueueFull, Unauthenticated
from longspan.server.identity import Tenant
from longspan.server.limits import Limits
from longspan.server.metrics.requests import RequestMetrics
from longspan.server.queue.job import RequestId
from longspan.server.rates.tenant_rates import TenantRates
from longspan.server.services.pacing import Pace

RETRY_S = 1.0
DRAIN_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted call.

    Attributes:
        deadline_s: on the event loop's clock; None when the caller set none.
        arrived_s: likewise.
        pace: what its upload keeps to.
    """

    request_id: RequestId
    tenant: Tenant
    deadline_s: float | None
    arrived_s: float
    pace: Pace


class Admission:
    """Counts calls; refuses at once when the server is full or shutting down.

    Attributes:
        active: calls admitted and not finished.
        authenticator: who may call.
        refusals: who was not let in.
    """

    def __init__(
        self, limits: Limits, metrics: RequestMetrics, authenticator: Authenticator
    ) -> None:
        self._limits = limits
        self._metrics = metrics
        self._rates = TenantRates(limits)
        self.authenticator = authenticator
        self.refusals = Refusals(time.monotonic())
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
            Draining, QueueFull, RateLimited: not now.
            Unauthenticated: nobody may be served.
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
        self._rates.enter(call.tenant, call.arrived_s)
        self.active += 1
        self._metrics.active.inc()
        self._idle.clear()
        try:
            yield call
        finally:
            self._rates.leave(call.tenant)
            self.active -= 1
            self._metrics.active.dec()
            if self.active == 0:
                self._idle.set()

    def tenant(self, context: grpc.aio.ServicerContext[Any, Any]) -> Tenant:
        """Whose call it is; a refusal is counted.

        Raises:
            Unauthenticated: nobody may be served.
            InvalidRequest: the caller's tenant is malformed.
        """
        # Checked again behind the interceptor: no call is served that was let past it.
        metadata = context.invocation_metadata() or ()
        try:
            return self.authenticator.tenant(metadata, context.auth_context())
        except Unauthenticated as error:
            self.refusals.note(error.refusal, context.peer(), time.monotonic())
            raise

    def _call(self, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
        now_s = asyncio.get_running_loop().time()
        remaining_s = context.time_remaining()
        tenant = self.tenant(context)
        return Call(
            request_id=RequestId(known_as(tenant)),
            tenant=tenant,
            deadline_s=None if remaining_s is None else now_s + remaining_s,
            arrived_s=now_s,
            pace=Pace(self._rates, tenant),
        )
