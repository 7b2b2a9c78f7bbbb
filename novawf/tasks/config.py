"""Settings of the queue: section `[tasks]`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TaskSettings(BaseModel):
    """How long an owner may be silent, and how failures are repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_s: float = Field(15.0, gt=0, description="An owner silent for longer loses its task.")
    retries: int = Field(3, ge=0, le=1000, description="Re-runs after the first; crashes count.")
    accept_timeout_s: float = Field(
        300.0, gt=0, description="An acceptance check that takes longer says no."
    )
    retention_h: float = Field(
        168.0, gt=0, description="Kept in the store after the end, then in the archive."
    )
    archive_dir: Path | None = Field(
        None, description="Directory of the archive; None: `archive` in the home."
    )
    default_executor: Literal["command", "python"] | None = Field(
        None, description="For tasks that name none; without it they end blocked, no_executor."
    )
    backoff_base_s: float = Field(1.0, ge=0, description="Pause before the first re-run.")
    backoff_cap_s: float = Field(600.0, ge=0, description="Longest pause between two runs.")
    series_ms: float = Field(
        2.0,
        ge=0,
        le=20,
        allow_inf_nan=False,
        description="Shorter callables run in series, so much work recorded together; 0: never.",
    )
    idle_wait_s: float = Field(
        10.0, gt=0, le=60, description="Longest blocking wait of an idle Nova; also its heartbeat."
    )
