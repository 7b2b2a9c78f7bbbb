"""Settings of supervision: how often and how fast a child is started again."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StuckSettings(BaseModel):
    """`[supervision.stuck]`: s without any movement after which a Nova counts as hung, by the state
    that it is in; 0: never. What a state rests by configuration is added.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    initializing: float = Field(
        default=120.0, ge=0, allow_inf_nan=False, description="Reading its kept state."
    )
    stream_check: float = Field(
        default=120.0, ge=0, allow_inf_nan=False, description="Looking at its streams."
    )
    work_discovery: float = Field(
        default=180.0,
        ge=0,
        allow_inf_nan=False,
        description="Waiting for work; an idle wait is `tasks.idle_wait_s` at most.",
    )
    task_execution: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Counts from the last output of the work in hand. A command is better ended by "
        "`executors.silence_s`: that costs the task, not the Nova.",
    )
    progress_update: float = Field(
        default=180.0, ge=0, allow_inf_nan=False, description="Recording a result."
    )
    completion_routine: float = Field(
        default=120.0, ge=0, allow_inf_nan=False, description="Beyond `completion.max_pause_s`."
    )
    phase_transition: float = Field(
        default=120.0, ge=0, allow_inf_nan=False, description="Changing its phase."
    )
    error_recovery: float = Field(
        default=180.0, ge=0, allow_inf_nan=False, description="Trying again after an error."
    )
    safety_pause: float = Field(
        default=180.0, ge=0, allow_inf_nan=False, description="Held by safety, a pause or a stop."
    )

    def limit_s(self, state: str) -> float:
        """The limit of a state; 0 for one that is unknown."""
        return float(getattr(self, state, 0.0)) if state in type(self).model_fields else 0.0


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
    silent_s: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="A child without a sign of life for so long, at least three "
        "`tasks.idle_wait_s`, is ended and started again; 0: never.",
    )
    deaf_s: float = Field(
        default=60.0,
        ge=0,
        allow_inf_nan=False,
        description="A Nova that reads none of its orders for so long is ended; 0: never.",
    )
    stuck: StuckSettings = StuckSettings()
    drain_s: float = Field(default=4.0, ge=0, allow_inf_nan=False)
    shutdown_s: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    starts_at_once: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _cap_is_not_below_base(self) -> Self:
        if self.backoff_cap_s < self.backoff_base_s:
            raise ValueError("backoff_cap_s must not be below backoff_base_s")
        return self
