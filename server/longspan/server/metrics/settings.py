"""The settings of metrics."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """Where metrics are served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str | None = Field(
        default=None,
        description="address where Prometheus scrapes, host:port, over HTTP; off by default",
    )
