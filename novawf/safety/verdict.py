"""What a safety mechanism says, and how several sayings become one: all must agree.

Pure values and functions. Safety fails closed, and this is where that is decided: no verdict, an
expired one and one that could not be reached all count as unsafe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class SafetyLevel(IntEnum):
    """How grave it is; the gravest of several wins."""

    NORMAL = 0
    CAUTION = 1
    UNSAFE = 2
    EMERGENCY = 3


class Action(StrEnum):
    """What a mechanism recommends."""

    PROCEED = "proceed"
    WAIT = "wait"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One mechanism's answer, or all of theirs. It holds until `expires_at_ms` (fleet ms)."""

    is_safe: bool
    reason: str
    recommended_action: Action
    safety_level: SafetyLevel
    expires_at_ms: int


def safe(reason: str, expires_at_ms: int) -> Verdict:
    """Nothing speaks against work."""
    return Verdict(True, reason, Action.PROCEED, SafetyLevel.NORMAL, expires_at_ms)


def unsafe(reason: str, expires_at_ms: int, level: SafetyLevel = SafetyLevel.UNSAFE) -> Verdict:
    """Nothing may start while this holds."""
    action = Action.STOP if level is SafetyLevel.EMERGENCY else Action.WAIT
    return Verdict(False, reason, action, level, expires_at_ms)


def combine(verdicts: Mapping[str, Verdict], now_ms: int, valid_until_ms: int) -> Verdict:
    """One verdict from those of all mechanisms (name → verdict): safe when every one is.

    It expires with the first of them, and never after `valid_until_ms`. The gravest of the unsafe
    ones gives the reason, with its mechanism's name in front; expired ones count as unsafe. No
    mechanisms at all is unsafe too: then nobody has looked.
    """
    if not verdicts:
        return unsafe("no safety mechanism is at work", valid_until_ms)
    current = {
        name: verdict
        if verdict.expires_at_ms > now_ms
        else unsafe("its verdict has expired", valid_until_ms)
        for name, verdict in verdicts.items()
    }
    against = [(name, verdict) for name, verdict in current.items() if not verdict.is_safe]
    if against:
        # An objection is held for the whole validity: it ends by a new verdict, never by itself.
        name, gravest = max(against, key=lambda pair: pair[1].safety_level)
        return Verdict(
            is_safe=False,
            reason=f"{name}: {gravest.reason}",
            recommended_action=gravest.recommended_action,
            safety_level=max(gravest.safety_level, SafetyLevel.UNSAFE),
            expires_at_ms=valid_until_ms,
        )
    return Verdict(
        is_safe=True,
        reason=f"{', '.join(sorted(current))}: safe",
        recommended_action=Action.PROCEED,
        safety_level=max(verdict.safety_level for verdict in current.values()),
        expires_at_ms=min(valid_until_ms, *(v.expires_at_ms for v in current.values())),
    )
