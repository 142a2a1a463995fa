"""The settings of authentication."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Signatures that only the holder of a private key can make: no HS*, and never "none".
ALGORITHMS = r"(RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA)"


class AuthSettings(BaseModel):
    """Who may call, and as which tenant; nobody has to say where none of it is set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys_file: Path | None = Field(
        default=None,
        description="API keys, one a line as longspan keys new prints them; read again when it "
        "changes",
    )
    jwt_key: Path | None = Field(
        default=None,
        description="public key (PEM) or keys (JWKS) of signed tokens; read again when it changes",
    )
    jwt_algorithms: str | None = Field(
        default=None,
        pattern=rf"^{ALGORITHMS}(,{ALGORITHMS})*$",
        description="the only signatures that count, as in RS256,ES256",
    )
    jwt_issuer: str | None = Field(default=None, min_length=1, description="what 'iss' must be")
    jwt_audience: str | None = Field(default=None, min_length=1, description="what 'aud' must name")
    jwt_tenant_claim: str = Field(
        default="tenant", min_length=1, description="the claim with the tenant"
    )
    jwt_leeway_s: float = Field(
        default=30.0, ge=0, le=60, description="how far the clocks of issuer and server may differ"
    )
    certificate_tenant: Literal["common-name", "san"] | None = Field(
        default=None, description="take the tenant from this part of the caller's certificate"
    )
    certificate_prefix: str = Field(
        default="",
        description="what stands before the tenant there, as in spiffe://example.org/tenant/",
    )

    @property
    def bearer(self) -> bool:
        """True where callers can send a key or a token."""
        return self.keys_file is not None or self.jwt_key is not None

    @property
    def enabled(self) -> bool:
        """True where every caller must be somebody."""
        return self.bearer or self.certificate_tenant is not None

    @model_validator(mode="after")
    def _tokens_are_pinned(self) -> Self:
        pins = (self.jwt_algorithms, self.jwt_issuer, self.jwt_audience)
        if self.jwt_key is not None and None in pins:
            raise ValueError("jwt_key needs jwt_algorithms, jwt_issuer and jwt_audience")
        if self.jwt_key is None and pins != (None, None, None):
            raise ValueError("jwt_algorithms, jwt_issuer and jwt_audience need jwt_key")
        return self
