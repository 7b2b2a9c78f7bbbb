"""Settings of the streams: section `[streams]`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class StreamSettings(BaseModel):
    """How streams are read, when an entry is given up, and how long what was consumed is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_s: float = Field(
        2.0, gt=0, le=2, description="Longest wait of the fleet's one blocking read."
    )
    batch: int = Field(64, ge=1, le=1000, description="Entries of one stream taken at once.")
    reclaim_after_s: float = Field(
        10.0,
        gt=0,
        description="An entry that a reader took and did not acknowledge for so long is taken "
        "over.",
    )
    poison_after: int = Field(
        3, ge=1, description="An entry that failed so often, or killed its reader, is quarantined."
    )
    max_age_h: float = Field(
        168.0, gt=0, description="Consumed entries older than this leave their stream."
    )
    max_length: int = Field(
        100_000, ge=1, description="Consumed entries beyond this many leave their stream."
    )
    trim_every_s: float = Field(60.0, gt=0, description="How often streams are trimmed.")
    quarantine_length: int = Field(
        10_000, ge=1, description="Refused entries that are remembered, about."
    )
