"""Settings of the safety verdict and of each mechanism (spec §5). Times in seconds."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FrostySettings(BaseModel):
    """`[safety.frosty]`: cooldowns after violations, doubling, with jitter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_s: float = Field(
        30.0, ge=0, le=600, description="First cooldown; each further one is twice as long."
    )
    cap_s: float = Field(600.0, ge=1, le=86_400, description="Longest cooldown (spec §5.1).")
    forget_s: float = Field(
        1800.0, ge=1, description="After so long without a violation the next cooldown is short."
    )


class WillySettings(BaseModel):
    """`[safety.really_chill_willy]`: meditation after emergencies, and when the machine is
    overloaded. The bounds of overload are far beyond what busy machines show: it is for those that
    are about to fall over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bangs: int = Field(
        5, ge=1, description="More emergencies than this within `window_s`: meditation."
    )
    stacked: int = Field(
        3, ge=1, description="More cooldowns that began during another one: the same."
    )
    window_s: float = Field(3600.0, ge=60, description="See `bangs`.")
    meditation_s: float = Field(1800.0, ge=1, description="How long nothing starts then.")
    load_per_core: float = Field(
        100.0, gt=0, description="Load average (1 min) for each core that counts as overload."
    )
    memory_left_share: float = Field(
        0.03, ge=0, lt=1, description="Share of the memory that must be available."
    )
    memory_pressure: float = Field(
        60.0, gt=0, le=100,
        description="Percent of the last 10 s in which everything waited for memory (PSI `full`).",
    )  # fmt: skip
    overload_s: float = Field(5.0, ge=0, description="An overload counts once it lasts so long.")


class HookHealthSettings(BaseModel):
    """`[safety.hook_health]`: what the fleet makes of a hook that was shut off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cooldown_s: float = Field(
        300.0, ge=1, description="So long the Nova whose hook it was starts nothing (spec §5.3)."
    )


class GuardianSettings(BaseModel):
    """`[safety.api_guardian]`: its emergency stop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    emergency_s: float = Field(
        300.0, ge=1, description="How long nothing starts after a call without a permit."
    )


class StreamMonitorSettings(BaseModel):
    """`[safety.stream_monitor]`: from when on the streams and the store's memory are a danger."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lag: int = Field(
        1_000_000, ge=1, description="Entries not consumed, of one stream, that hold all work."
    )
    length: int = Field(5_000_000, ge=1, description="Entries of one stream that do.")
    memory_share: float = Field(
        0.95, gt=0, le=1, description="Share of the store's `maxmemory` in use that does."
    )
    poison_per_minute: int = Field(
        1000, ge=1, description="Refused entries a minute that are worth a caution."
    )


class SafetySettings(BaseModel):
    """`[safety]`: a verdict is renewed every `refresh_s` and holds for `valid_s`.

    When the renewals stop, for whatever reason, nothing starts once `valid_s` has passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    refresh_s: float = Field(default=2.0, ge=0.05, le=60)
    valid_s: float = Field(default=6.0, ge=0.1, le=300)
    frosty: FrostySettings = FrostySettings()
    really_chill_willy: WillySettings = WillySettings()
    hook_health: HookHealthSettings = HookHealthSettings()
    api_guardian: GuardianSettings = GuardianSettings()
    stream_monitor: StreamMonitorSettings = StreamMonitorSettings()

    @model_validator(mode="after")
    def _outlives_a_lost_renewal(self) -> Self:
        if self.valid_s < 2 * self.refresh_s:
            raise ValueError("valid_s must be at least twice refresh_s: one renewal may be late")
        return self
