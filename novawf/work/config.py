"""Settings of finding work: section `[work]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class WorkSettings(BaseModel):
    """When an idle Nova looks for work of its own accord, and how much of it there may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    discovery: bool = Field(
        True, description="Whether idle Novas look for suggestions, trouble and momentum."
    )
    discovery_every_s: float = Field(
        600.0, ge=10, le=86_400, description="Time between two looks of a Nova that stays idle."
    )
    momentum: bool = Field(True, description="Built-in jobs in idle time; also `--momentum off`.")
    momentum_after_s: float = Field(
        30.0,
        ge=5,
        le=86_400,
        description="Idle for so long before the first look; `--pace` scales it, down to 5 s.",
    )
    momentum_every_s: float = Field(
        900.0,
        ge=60,
        le=604_800,
        description="Each kind of momentum task comes at most once in this time, fleet-wide.",
    )
    job_limit_s: float = Field(
        5.0, gt=0, le=60, description="A built-in job that takes longer is ended as timed out."
    )
