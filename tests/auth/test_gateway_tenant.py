"""The tenant that a gateway names."""

from __future__ import annotations

import pytest

from longspan.server.auth.authenticator import Authenticator
from longspan.server.errors import InvalidRequest
from longspan.server.identity import TENANT_KEY


def test_one_tenant_is_taken_and_two_are_refused() -> None:
    """A gateway that adds its own and leaves the caller's must not serve the caller's."""
    gateway = Authenticator(trust_metadata=True)
    assert gateway.tenant([(TENANT_KEY, "a")], {}) == "a"
    for names in (("a", "b"), ("a", "a"), ("", "a")):
        with pytest.raises(InvalidRequest, match="2 tenants"):
            gateway.tenant([(TENANT_KEY, name) for name in names], {})
    with pytest.raises(InvalidRequest, match="malformed"):
        gateway.tenant([(TENANT_KEY, b"a")], {})
    assert Authenticator().tenant([(TENANT_KEY, "a"), (TENANT_KEY, "b")], {}) == "default"
