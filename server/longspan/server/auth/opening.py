"""Opens authentication as the configuration says."""

from __future__ import annotations

from longspan.server.auth.api_keys import ApiKeys
from longspan.server.auth.authenticator import Authenticator
from longspan.server.auth.certificates import (
    ALTERNATIVE_NAME,
    COMMON_NAME,
    CertificateTenants,
)
from longspan.server.auth.public_keys import read_public_keys
from longspan.server.auth.settings import AuthSettings
from longspan.server.auth.tokens import TokenRules, Tokens
from longspan.server.reloaded import Reloaded

_PARTS = {"common-name": COMMON_NAME, "san": ALTERNATIVE_NAME}


def open_authenticator(settings: AuthSettings, *, trust_metadata: bool) -> Authenticator:
    """Read the files of the settings.

    Raises:
        ConfigError: one of them cannot be used.
    """
    certificates = None
    if settings.certificate_tenant is not None:
        part = _PARTS[settings.certificate_tenant]
        certificates = CertificateTenants(part, settings.certificate_prefix)
    return Authenticator(
        keys=_keys(settings),
        tokens=_tokens(settings),
        certificates=certificates,
        trust_metadata=trust_metadata,
    )


def _keys(settings: AuthSettings) -> Reloaded[ApiKeys] | None:
    path = settings.keys_file
    if path is None:
        return None
    return Reloaded([path], lambda: ApiKeys.read(path))


def _tokens(settings: AuthSettings) -> Reloaded[Tokens] | None:
    path, issuer, audience = settings.jwt_key, settings.jwt_issuer, settings.jwt_audience
    if path is None or issuer is None or audience is None:
        return None
    pinned = (settings.jwt_algorithms or "").split(",")
    rules = TokenRules(issuer, audience, settings.jwt_tenant_claim, settings.jwt_leeway_s)
    return Reloaded([path], lambda: Tokens(read_public_keys(path, pinned), rules))
