"""What a safety mechanism says, and how several sayings become one: the strongest wins.

Pure values and functions. Safety fails closed, and this is where that is decided: no verdict, an
expired one and one that could not be reached all count as unsafe.

The lattice (spec §5, "all must agree")::

    allow  <  delay  <  pause  <  halt

* ``delay``: a cooldown; it ends by itself at a known time. Critical work goes on.
* ``pause``: nothing starts until the mechanism says otherwise.
* ``halt``: an emergency; nothing starts, and the API is left alone.

What has begun may end under each of them; only an emergency stop ends it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class SafetyLevel(IntEnum):
    """How grave it is; the gravest of several wins."""

    NORMAL = 0
    CAUTION = 1
    UNSAFE = 2
    EMERGENCY = 3


class Action(IntEnum):
    """What a mechanism recommends: the lattice."""

    ALLOW = 0
    DELAY = 1
    PAUSE = 2
    HALT = 3

    @property
    def word(self) -> str:
        """As the gate, `status` and people spell it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One mechanism's answer, or all of theirs. It holds until `expires_at_ms` (fleet ms)."""

    recommended_action: Action
    reason: str
    safety_level: SafetyLevel
    expires_at_ms: int
    until_ms: int = 0
    """When the objection is expected to end (fleet ms); 0 where nobody can tell."""

    @property
    def is_safe(self) -> bool:
        """Whether work may start."""
        return self.recommended_action is Action.ALLOW


def safe(reason: str, expires_at_ms: int, level: SafetyLevel = SafetyLevel.NORMAL) -> Verdict:
    """Nothing speaks against work."""
    return Verdict(Action.ALLOW, reason, level, expires_at_ms)


def unsafe(
    reason: str, expires_at_ms: int, action: Action = Action.PAUSE, until_ms: int = 0
) -> Verdict:
    """Nothing may start while this holds."""
    level = SafetyLevel.EMERGENCY if action is Action.HALT else SafetyLevel.UNSAFE
    return Verdict(action, reason, level, expires_at_ms, until_ms)


def combine(verdicts: Mapping[str, Verdict], now_ms: int, valid_until_ms: int) -> Verdict:
    """One verdict from those of all mechanisms (name → verdict): safe when every one is.

    It expires with the first of them, and never after `valid_until_ms`. The strongest of the
    objections gives the reason, with its mechanism's name in front; expired ones count as unsafe.
    No mechanisms at all is unsafe too: then nobody has looked.
    """
    if not verdicts:
        return unsafe("no safety mechanism is at work", valid_until_ms)
    current = {
        name: verdict if verdict.expires_at_ms > now_ms else _expired(verdict, valid_until_ms)
        for name, verdict in verdicts.items()
    }
    against = [(name, verdict) for name, verdict in current.items() if not verdict.is_safe]
    if against:
        # An objection is held for the whole validity: it ends by a new verdict, never by itself.
        name, strongest = max(
            against, key=lambda pair: (pair[1].recommended_action, pair[1].until_ms)
        )
        return Verdict(
            recommended_action=strongest.recommended_action,
            reason=f"{name}: {strongest.reason}",
            safety_level=max(verdict.safety_level for verdict in current.values()),
            expires_at_ms=valid_until_ms,
            until_ms=strongest.until_ms,
        )
    return Verdict(
        recommended_action=Action.ALLOW,
        reason=f"{', '.join(sorted(current))}: safe",
        safety_level=max(verdict.safety_level for verdict in current.values()),
        expires_at_ms=min(valid_until_ms, *(v.expires_at_ms for v in current.values())),
    )


def _expired(verdict: Verdict, valid_until_ms: int) -> Verdict:
    """At least a pause; what was a halt stays one."""
    action = max(verdict.recommended_action, Action.PAUSE)
    return unsafe("its verdict has expired", valid_until_ms, action)


def strongest_per_nova(
    holds: Mapping[str, Mapping[str, Verdict]], valid_until_ms: int
) -> dict[str, Verdict]:
    """What holds single Novas (mechanism → Nova → verdict): the strongest for each, by its Nova."""
    found: dict[str, dict[str, Verdict]] = {}
    for mechanism, of_novas in holds.items():
        for nova, verdict in of_novas.items():
            if not verdict.is_safe:
                found.setdefault(nova, {})[mechanism] = verdict
    return {nova: combine(verdicts, 0, valid_until_ms) for nova, verdicts in found.items()}
