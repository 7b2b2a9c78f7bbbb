"""Settings of the completion routine: section `[completion]`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CompletionSettings(BaseModel):
    """How long the routine rests (a minute each in the sources, 10 s in all here), and what it
    writes down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    celebration_s: float = Field(60.0, ge=0, le=3600, allow_inf_nan=False)
    reflection_s: float = Field(60.0, ge=0, le=3600, allow_inf_nan=False)
    planning_s: float = Field(60.0, ge=0, le=3600, allow_inf_nan=False)
    max_pause_s: float = Field(
        10.0, ge=0, le=3600, allow_inf_nan=False, description="Cap on the three together."
    )
    records: Literal["burst", "all", "off"] = Field(
        "burst",
        description="`burst`: of tasks that end within half a second the first 16 get records of "
        "their own, the others one together; `all`: each its own; `off`: none.",
    )
