"""Rates are a tenant's own, and the table of tenants stays small."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longspan.server.errors import RateLimited
from longspan.server.identity import Tenant
from longspan.server.limits import Limits
from longspan.server.rates.tenant_rates import TenantRates

A, B = Tenant("a"), Tenant("b")


def rates(max_tenants: int = 10, **limits: int) -> TenantRates:
    return TenantRates(Limits.model_validate(limits), max_tenants)


def test_nothing_is_limited_unless_it_is_set() -> None:
    free = rates()
    for _ in range(10_000):
        free.enter(A, 0.0)
        assert free.uploaded(A, 1 << 30, 0.0) == 0.0


def test_requests_a_minute_are_counted_for_each_tenant() -> None:
    limited = rates(tenant_requests_per_minute=3)
    for _ in range(3):
        limited.enter(A, 0.0)
    with pytest.raises(RateLimited) as refused:
        limited.enter(A, 0.0)
    assert refused.value.retry_after_s == pytest.approx(20.0)
    limited.enter(B, 0.0)
    limited.enter(A, 20.001)
    with pytest.raises(RateLimited):
        limited.enter(A, 20.001)


def test_requests_at_once_are_given_back() -> None:
    limited = rates(tenant_requests=2, tenant_requests_per_minute=3)
    limited.enter(A, 0.0)
    limited.enter(A, 0.0)
    for _ in range(5):
        with pytest.raises(RateLimited, match="at most 2"):
            limited.enter(A, 0.0)
    limited.leave(A)
    # Those that were refused were not counted as requests of this minute.
    limited.enter(A, 0.0)


def test_uploads_of_a_tenant_share_its_pace() -> None:
    limited = rates(tenant_upload_bytes_per_s=1000)
    limited.enter(A, 0.0)
    assert limited.uploaded(A, 1000, 0.0) == 0.0
    assert limited.uploaded(A, 500, 0.0) == pytest.approx(0.5)
    assert limited.uploaded(A, 500, 0.0) == pytest.approx(1.0)
    limited.enter(B, 0.0)
    assert limited.uploaded(B, 1000, 0.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200))
def test_the_table_holds_what_runs_and_little_else(moves: list[tuple[int, bool]]) -> None:
    limited, running = rates(max_tenants=5, tenant_requests=100), dict[Tenant, int]()
    for number, enters in moves:
        tenant = Tenant(f"t{number}")
        if enters:
            limited.enter(tenant, 0.0)
            running[tenant] = running.get(tenant, 0) + 1
        elif running.get(tenant):
            limited.leave(tenant)
            running[tenant] -= 1
        active = sum(1 for count in running.values() if count)
        assert len(limited) <= max(5, active + 1)
    for tenant, count in running.items():
        for _ in range(count):
            limited.leave(tenant)
