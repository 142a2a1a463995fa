"""Slows an upload down to what its tenant may send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from longspan.server.identity import Tenant
from longspan.server.rates.tenant_rates import TenantRates


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of one call's upload.

    A byte that is not read fills the connection's window, so that the client waits too.
    """

    rates: TenantRates
    tenant: Tenant

    async def keep(self, size_bytes: int) -> None:
        """Wait until the next bytes may be read, after some were."""
        now_s = asyncio.get_running_loop().time()
        wait_s = self.rates.uploaded(self.tenant, size_bytes, now_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)
