"""Settings of the API limits (spec §5.4). What they mean is decided in `scripts/limits.lua`."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}(/[a-z0-9][a-z0-9_.-]{0,31}){0,3}")

NAME_RULE = "a path of up to 4 parts of a-z, 0-9, _, . and -, with / between"


def valid_limit_name(name: str) -> bool:
    """Whether a limit may be called so, such as `anthropic` or `anthropic/alice`."""
    return _NAME.fullmatch(name) is not None


class NamedLimit(BaseModel):
    """`[limits.named.NAME]`: what one provider or login allows; None: no such bound of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(default=None, ge=1)
    requests_per_hour: int | None = Field(default=None, ge=1)
    concurrent: int | None = Field(default=None, ge=1)
    request_timeout_s: float | None = Field(
        default=None, ge=1, le=3600, description="None: that of `[limits]`."
    )


class LimitSettings(BaseModel):
    """`[limits]`: what the whole fleet may ask of APIs, in any sliding window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int = Field(default=30, ge=1)
    requests_per_hour: int = Field(default=500, ge=1)
    concurrent: int = Field(default=5, ge=1)
    request_timeout_s: float = Field(default=30.0, ge=1, le=3600)
    critical_share: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Of each bound so much, rounded down, is kept for critical work.",
    )
    breaker_failures: int = Field(default=5, ge=1)
    breaker_open_s: float = Field(
        default=30.0,
        ge=0.1,
        le=3600,
        description="An open breaker lets its first probe through after this; doubles while probes "
        "fail.",
    )
    breaker_open_cap_s: float = Field(
        default=600.0, ge=0.1, le=86400, description="Longest time until the next probe."
    )
    advice_cap_s: float = Field(
        default=3600.0,
        ge=1,
        le=86400,
        description="The longest that a provider's answer (Retry-After, reset) is obeyed.",
    )
    backoff_s: float = Field(
        default=5.0,
        ge=0.1,
        le=3600,
        description="Pause after a 429 or 529 that does not say how long; doubles while they come.",
    )
    utilization: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="From this share of a provider's own limit on, what is left of it is spread "
        "evenly until its reset.",
    )
    named: dict[str, NamedLimit] = Field(default_factory=dict)

    @field_validator("named")
    @classmethod
    def _names_are_paths(cls, named: dict[str, NamedLimit]) -> dict[str, NamedLimit]:
        for name in named:
            if not valid_limit_name(name):
                raise ValueError(f"{name!r} is no name of a limit: {NAME_RULE}")
        return named
