"""Settings of the phases: section `[phases]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PhaseSettings(BaseModel):
    """How long a phase lasts, and whether personal ones come between the work phases."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks_per_phase: int = Field(10, ge=1, description="Tasks completed before the phase changes.")
    personal_every: int = Field(
        0, ge=0, description="A personal phase after this many work phases; 0: never."
    )
    personal_s: float = Field(
        60.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long it lasts at most, scaled by `pace`; any work ends it.",
    )
