"""Settings of rhythm and character: section `[personality.NAME]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CYCLE_MAX_S = 600.0
"""Longest cycle and longest idle pause, in seconds."""

_WORD = r"^[a-z][a-z0-9_]{0,63}$"


class ProfileSettings(BaseModel):
    """`[personality.NAME]`: what of a profile is set otherwise; None leaves it as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cycle_s: float | None = Field(None, ge=0, le=CYCLE_MAX_S)
    reflection_share: float | None = Field(None, ge=0, le=1)
    celebration: str | None = Field(None, pattern=_WORD)
    work_style: str | None = Field(None, pattern=_WORD)
    communication: str | None = Field(None, pattern=_WORD)
    dream_probability: float | None = Field(None, ge=0, le=1)
