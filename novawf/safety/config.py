"""Settings of the safety verdict: how often it is renewed and how long it holds."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SafetySettings(BaseModel):
    """`[safety]`: a verdict is renewed every `refresh_s` and holds for `valid_s`.

    When the renewals stop, for whatever reason, nothing starts once `valid_s` has passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh_s: float = Field(default=2.0, ge=0.05, le=60)
    valid_s: float = Field(default=6.0, ge=0.1, le=300)

    @model_validator(mode="after")
    def _outlives_a_lost_renewal(self) -> Self:
        if self.valid_s < 2 * self.refresh_s:
            raise ValueError("valid_s must be at least twice refresh_s: one renewal may be late")
        return self
