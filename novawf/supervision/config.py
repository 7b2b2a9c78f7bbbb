"""Settings of supervision: how often and how fast a child is started again."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class SupervisionSettings(BaseModel):
    """`[supervision]`: restart intensity, back-off and the time a child gets to stop.

    `drain_s` is how long work in hand may go on when the fleet ends; a child's process may take
    `shutdown_s` more. `starts_at_once` bounds first starts, never restarts; 0 goes by the cores.

    `spares` (standby Novas) is read by the fleet, `poison_after` (Novas a task may kill before the
    task is quarantined) by the queue; nothing in this package acts on them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_restarts: int = Field(default=5, ge=0)
    period_s: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    backoff_base_s: float = Field(default=0.5, gt=0, allow_inf_nan=False)
    backoff_cap_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    healthy_after_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    spares: int = Field(default=0, ge=0, le=100)
    poison_after: int = Field(default=3, ge=1)
    drain_s: float = Field(default=4.0, ge=0, allow_inf_nan=False)
    shutdown_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    starts_at_once: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _cap_is_not_below_base(self) -> Self:
        if self.backoff_cap_s < self.backoff_base_s:
            raise ValueError("backoff_cap_s must not be below backoff_base_s")
        return self
