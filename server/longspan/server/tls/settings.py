"""The settings of TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TlsSettings(BaseModel):
    """Files in PEM; read again when they change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cert: Path | None = Field(
        default=None,
        description="certificate chain of the API port, PEM; read again when it changes",
    )
    key: Path | None = Field(default=None, description="its private key, PEM, without a password")
    client_ca: Path | None = Field(
        default=None,
        description="callers must show a certificate that one of these authorities signed",
    )

    @property
    def enabled(self) -> bool:
        """True where the API port speaks TLS."""
        return self.cert is not None

    @model_validator(mode="after")
    def _files_go_together(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca needs cert and key")
        return self
