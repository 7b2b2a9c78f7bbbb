"""Settings of wake signals: section `[wake]`. What they mean is decided in `wake_signals.py`.

Patterns are checked here, when they are loaded: a broken one would otherwise show when the first
signal arrives, and one that backtracks without end would stop the process that reads signals.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Tier = Literal["critical", "high", "medium", "low", "background"]

MAX_PATTERN_CHARACTERS = 1000
MAX_WEIGHT = 4.0
"""From the lowest tier to the highest: more could not change anything."""

_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,\d*\}|.", re.DOTALL)
_HOURS = re.compile(r"([01]?\d|2[0-4])-([01]?\d|2[0-4])")


def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern as signals are compared with it: anywhere in the text, in any case.

    Raises ValueError when it is no regular expression, or could take exponential time.
    """
    if not text.strip():
        raise ValueError("an empty pattern would match everything")
    if len(text) > MAX_PATTERN_CHARACTERS:
        raise ValueError(f"a pattern has at most {MAX_PATTERN_CHARACTERS} characters")
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None
    if _may_run_away(text):
        raise ValueError(
            f"{text!r} repeats without end a group that repeats or has alternatives itself, which "
            "can take for ever: bound the outer one, as in (...){1,9}"
        )
    return pattern


def hours_of(window: str) -> frozenset[int]:
    """The hours of a window: `22-6` is from 22:00 until 06:00. Raises ValueError."""
    found = _HOURS.fullmatch(window.strip())
    if found is None:
        raise ValueError(f"{window!r} is no window of hours, such as 22-6")
    first, end = int(found[1]) % 24, int(found[2]) % 24
    return frozenset((first + n) % 24 for n in range((end - first) % 24 or 24))


def _may_run_away(text: str) -> bool:
    """Whether a group that repeats or branches is itself repeated without an upper bound."""
    inside = [False]  # by open group: whether it repeats something or has alternatives
    parts = _TOKENS.findall(text)
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part == "(":
            inside.append(False)
        elif part == ")" and len(inside) > 1:
            risky = inside.pop()
            if risky and _is_endless(following):
                return True
            inside[-1] |= risky
        elif part == "|" or _is_endless(part):
            inside[-1] = True
    return False


def _is_endless(part: str) -> bool:
    return part in ("*", "+") or (part.startswith("{") and part.endswith(",}"))


class WakePatterns(BaseModel):
    """`[wake.patterns]`: regular expressions for the text, by tier; they come before ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critical: tuple[str, ...] = Field((), description="Texts that make a signal critical.")
    high: tuple[str, ...] = Field((), description="Texts that make a signal high.")
    medium: tuple[str, ...] = Field((), description="Texts that make a signal medium; tried last.")
    low: tuple[str, ...] = Field((), description="Texts that make a signal low.")
    background: tuple[str, ...] = Field((), description="Texts that make a signal background.")

    @field_validator("critical", "high", "medium", "low", "background")
    @classmethod
    def _patterns_are_safe(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for text in patterns:
            compile_pattern(text)
        return patterns


class WakeDelays(BaseModel):
    """`[wake.delays]`: how long a signal of each tier waits before it is work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critical_s: float = Field(0.0, ge=0, le=604_800, description="Pause before critical signals.")
    high_s: float = Field(30.0, ge=0, le=604_800, description="Pause before high signals.")
    medium_s: float = Field(300.0, ge=0, le=604_800, description="Pause before medium signals.")
    low_s: float = Field(
        1800.0, ge=0, le=604_800, description="Low signals stay suggestions for so long."
    )
    background_s: float = Field(
        3600.0, ge=0, le=604_800, description="Background signals stay suggestions for so long."
    )


class WakeSettings(BaseModel):
    """`[wake]`: how wake signals are classified, and what is kept of the less urgent ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_tier: Tier = Field("low", description="For texts that no pattern matches.")
    builtin_patterns: bool = Field(
        True, description="Whether the patterns that come with NOVAWF are tried after yours."
    )
    examined_characters: int = Field(
        4000, ge=100, le=10_000, description="Of a text so many are compared with patterns."
    )
    senders: dict[str, float] = Field(
        {}, description="Sender, or a pattern such as `ci-*`, and the tiers it raises (or lowers)."
    )
    raise_hours: tuple[str, ...] = Field(
        (), description="Windows such as `22-6` that raise one tier."
    )
    lower_hours: tuple[str, ...] = Field(
        (), description="Windows such as `9-17` that lower one tier."
    )
    load_above: float = Field(
        2.0, gt=0, description="Load per core above which low signals become background ones."
    )
    repeat_count: int = Field(
        3, ge=0, le=1000, description="The same text so often raises one tier; 0 switches it off."
    )
    repeat_within_s: float = Field(600.0, gt=0, le=86_400, description="See `repeat_count`.")
    suggestions_kept: int = Field(
        1000, ge=1, le=10_000, description="Low and background signals kept; of more the oldest go."
    )
    patterns: WakePatterns = WakePatterns()
    delays: WakeDelays = WakeDelays()

    @field_validator("senders")
    @classmethod
    def _weights_are_bounded(cls, senders: dict[str, float]) -> dict[str, float]:
        for name, weight in senders.items():
            if not name.strip():
                raise ValueError("a sender has a name, or is a pattern such as ci-*")
            if not abs(weight) <= MAX_WEIGHT:  # so that NaN is refused too
                raise ValueError(f"the weight of {name} is {weight:g}: allowed is -4 to 4")
        return senders

    @field_validator("raise_hours", "lower_hours")
    @classmethod
    def _windows_are_hours(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        for window in windows:
            hours_of(window)
        return windows
