"""Settings of the metrics page: section `[metrics]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MetricsSettings(BaseModel):
    """Where Prometheus finds the fleet's metrics; on this machine only unless told otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int = Field(9464, ge=0, le=65535, description="0 takes any free port.")
    host: str = Field("127.0.0.1", min_length=1)
