"""Settings of the API limits (spec §5.4). What they mean is decided in `scripts/acquire.lua`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LimitSettings(BaseModel):
    """`[limits]`: what the whole fleet may ask of the API, in any sliding window.

    `breaker_failures` belongs to the circuit breaker, which does not exist yet: the value is
    accepted and checked, and nothing acts on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int = Field(default=30, ge=1)
    requests_per_hour: int = Field(default=500, ge=1)
    concurrent: int = Field(default=5, ge=1)
    request_timeout_s: float = Field(default=30.0, ge=1, le=3600)
    breaker_failures: int = Field(default=5, ge=1)
