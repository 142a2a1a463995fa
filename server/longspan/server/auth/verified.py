"""Tokens that were found to hold, until they expire. Pure: time is passed in."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from longspan.server.identity import Tenant

REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class _Verified:
    tenant: Tenant
    until_s: float


class VerifiedTokens:
    """The tokens used last: a signature costs far more to check than to remember.

    Kept by digest, so that no token lies in memory for longer than its call.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, token: str, now_s: float) -> Tenant | None:
        """Whose token it is; None if that is not known, or no longer holds."""
        name = _name(token)
        known = self._known.get(name)
        if known is None:
            return None
        if now_s >= known.until_s:
            del self._known[name]
            return None
        self._known.move_to_end(name)
        return known.tenant

    def keep(self, token: str, tenant: Tenant, until_s: float) -> None:
        """Remember one; forget the one unused for longest."""
        self._known[_name(token)] = _Verified(tenant, until_s)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _name(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
