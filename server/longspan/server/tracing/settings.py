"""Where spans go, and how many."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TracingSettings(BaseModel):
    """See ``longspan serve --help``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+$",
        description="OTLP collector that spans are sent to by gRPC, as in http://localhost:4317; "
        "off by default",
    )
    sample_ratio: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="share of the traces recorded that begin here; a caller's own trace is "
        "recorded if the caller records it",
    )
    lookup_ratio: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="share of those again for calls that compute nothing (get and list documents, "
        "statistics)",
    )
