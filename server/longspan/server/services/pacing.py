"""Slows an upload down to what its tenant may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from longspan.server.identity import Tenant
from longspan.server.rates.tenant_rates import TenantRates

LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of one call's upload.

    A byte that is not read fills the connection's window, so that the client waits too.
    """

    rates: TenantRates
    tenant: Tenant

    async def keep(self, size_bytes: int, given_up: Callable[[], bool]) -> None:
        """Wait until the next bytes may be read, after some were.

        Args:
            given_up: asked now and then; True ends the wait, as nobody reads on.
        """
        now_s = asyncio.get_running_loop().time()
        wait_s = self.rates.uploaded(self.tenant, size_bytes, now_s)
        # A debt may take minutes to pay: a newer stream of the same upload cannot wait for it.
        while wait_s > 0 and not given_up():
            await asyncio.sleep(min(wait_s, LOOK_EVERY_S))
            wait_s -= LOOK_EVERY_S
