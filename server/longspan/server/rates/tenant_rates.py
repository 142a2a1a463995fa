"""How fast each tenant may ask and send. Pure policy: time is passed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from longspan.server.errors import RateLimited
from longspan.server.identity import Tenant
from longspan.server.limits import Limits
from longspan.server.rates.token_bucket import TokenBucket

MINUTE_S = 60.0
RETRY_S = 1.0
# Whoever signs tokens decides how many tenants there are; the one unseen for longest is forgotten.
MAX_TENANTS = 10_000


@dataclass(slots=True)
class _Rates:
    requests: TokenBucket | None
    upload_bytes: TokenBucket | None
    active: int = 0


class TenantRates:
    """Requests per minute, requests at once and upload bytes per second, tenant by tenant."""

    def __init__(self, limits: Limits, max_tenants: int = MAX_TENANTS) -> None:
        self._limits = limits
        self._max_tenants = max_tenants
        self._tenants: OrderedDict[Tenant, _Rates] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tenants)

    def enter(self, tenant: Tenant, now_s: float) -> None:
        """Count one request in; every one that entered must leave.

        Raises:
            RateLimited: not now.
        """
        rates = self._rates(tenant, now_s)
        at_once = self._limits.tenant_requests
        if at_once is not None and rates.active >= at_once:
            raise RateLimited(
                f"{rates.active} requests of this tenant are being served; at most {at_once}",
                retry_after_s=RETRY_S,
            )
        wait_s = 0.0 if rates.requests is None else rates.requests.take(1, now_s)
        if wait_s > 0:
            raise RateLimited(
                f"at most {self._limits.tenant_requests_per_minute} requests of a tenant a minute",
                retry_after_s=wait_s,
            )
        rates.active += 1

    def leave(self, tenant: Tenant) -> None:
        """Count one request out."""
        rates = self._tenants[tenant]
        rates.active -= 1
        if not rates.active and len(self._tenants) > self._max_tenants:
            del self._tenants[tenant]

    def uploaded(self, tenant: Tenant, size_bytes: int, now_s: float) -> float:
        """Count bytes of an upload; the seconds to wait before more of it is read."""
        bucket = self._rates(tenant, now_s).upload_bytes
        return 0.0 if bucket is None else bucket.owe(size_bytes, now_s)

    def _rates(self, tenant: Tenant, now_s: float) -> _Rates:
        rates = self._tenants.get(tenant)
        if rates is None:
            self._make_room()
            rates = self._tenants[tenant] = self._new(now_s)
        self._tenants.move_to_end(tenant)
        return rates

    def _new(self, now_s: float) -> _Rates:
        limits, requests, upload_bytes = self._limits, None, None
        if limits.tenant_requests_per_minute is not None:
            each = limits.tenant_requests_per_minute
            requests = TokenBucket(each / MINUTE_S, each, now_s)
        if limits.tenant_upload_bytes_per_s is not None:
            each = limits.tenant_upload_bytes_per_s
            upload_bytes = TokenBucket(each, each, now_s)
        return _Rates(requests, upload_bytes)

    def _make_room(self) -> None:
        # Tenants with running requests stay: those are bounded by limits.requests.
        if len(self._tenants) < self._max_tenants:
            return
        idle = next((name for name, one in self._tenants.items() if not one.active), None)
        if idle is not None:
            del self._tenants[idle]
