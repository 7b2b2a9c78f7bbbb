"""Frosty: lets things cool down after a violation (spec §5.1).

Each violation begins a cooldown for whoever did it, a Nova or the whole fleet: exponential
back-off with jitter, capped, short again after half an hour of peace. A violation during a
cooldown stacks another one on it, which is told to all (Really Chill Willy counts them). A hook of
nobody's Nova cools nobody: its own governor has shut it off.

It looks at nothing itself: it hears of violations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from novawf.ids import FLEET
from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, Verdict, safe, unsafe

if TYPE_CHECKING:
    from novawf.safety.config import FrostySettings

COOLED = frozenset({Kind.API_HAMMERING, Kind.SYSTEM_OVERLOAD, Kind.HOOK_FAILURE})
LEVELS = 16
"""Doublings are counted no further: the cap was reached long before."""


@dataclass(frozen=True, slots=True)
class Cooling:
    """One scope's cooldown."""

    level: int = 0
    """How many came one upon the other: the next is `base_s` doubled so often."""
    last_ms: int = 0
    until_ms: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FrostyMemory:
    """Cooldowns by scope (`fleet` or a Nova), and what they were for, ever, by kind and hour of the
    day in UTC: when do things go wrong?"""

    scopes: Mapping[str, Cooling] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class Frosty:
    """The mechanism."""

    name = "frosty"
    deadline_s = 1.0

    def __init__(self, settings: FrostySettings, valid_s: float) -> None:
        self._settings = settings
        self._valid_ms = round(valid_s * 1000)

    async def observe(self) -> None:
        """There is nothing to look at."""

    def evaluate(
        self, observation: Observation[None], state: FrostyMemory, now_ms: int
    ) -> Judgement[FrostyMemory]:
        """A cooldown for each violation; delay while one holds."""
        scopes, counts, stacked = dict(state.scopes), dict(state.counts), []
        for event in observation.events:
            scope = _scope(event)
            if event.kind not in COOLED or not scope:
                continue
            at_ms = min(event.at_ms, now_ms)
            before = scopes.get(scope, Cooling())
            after = cooled(before, event, at_ms, self._settings)
            scopes[scope] = after
            pattern = f"{event.kind.value}@{at_ms // 3_600_000 % 24:02d}"
            counts[pattern] = counts.get(pattern, 0) + 1
            if before.until_ms > at_ms:
                stacked.append(
                    SafetyEvent(
                        Kind.STACKED_COOLDOWN,
                        self.name,
                        f"{event.kind.value} during the cooldown of {_whose(scope)}",
                        "" if scope == FLEET else scope,
                    )
                )
        scopes = {
            scope: cooling
            for scope, cooling in scopes.items()
            if now_ms - cooling.last_ms < self._settings.forget_s * 1000
            or cooling.until_ms > now_ms
        }
        expires_ms = now_ms + self._valid_ms
        holds = {
            scope: _delay(cooling, scope, expires_ms)
            for scope, cooling in scopes.items()
            if cooling.until_ms > now_ms
        }
        verdict = holds.pop(FLEET, safe("nothing has to cool down", expires_ms))
        return Judgement(verdict, FrostyMemory(scopes, counts), holds, tuple(stacked))

    def parse(self, memory: Any) -> FrostyMemory:
        """See `Mechanism.parse`."""
        if memory is None:
            return FrostyMemory()
        return FrostyMemory(
            {
                str(scope): Cooling(int(level), int(last), int(until), str(reason))
                for scope, (level, last, until, reason) in memory["scopes"].items()
            },
            {str(pattern): int(count) for pattern, count in memory["counts"].items()},
        )

    def dump(self, memory: FrostyMemory) -> Any:
        """See `Mechanism.dump`."""
        return {
            "scopes": {
                scope: [c.level, c.last_ms, c.until_ms, c.reason]
                for scope, c in memory.scopes.items()
            },
            "counts": dict(memory.counts),
        }


def cooled(before: Cooling, event: SafetyEvent, at_ms: int, settings: FrostySettings) -> Cooling:
    """The cooldown after a violation at `at_ms`. Its jitter comes from the event's id, so that
    judging it again gives the same."""
    peace = at_ms - before.last_ms >= settings.forget_s * 1000
    level = 0 if peace else before.level
    longest_s = min(settings.cap_s, settings.base_s * 2 ** min(level, LEVELS))
    cooldown_ms = round(longest_s * (0.5 + 0.5 * _jitter(event.id)) * 1000)
    return replace(
        before,
        level=min(level + 1, LEVELS),
        last_ms=max(before.last_ms, at_ms),
        until_ms=max(before.until_ms, at_ms + cooldown_ms),
        reason=f"{event.kind.value}: {event.detail}"[:200],
    )


def _jitter(event_id: str) -> float:
    """Uniform in [0, 1), and the same for the same event."""
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:4]) / 2**32


def _scope(event: SafetyEvent) -> str:
    """Whom a violation cools; '' nobody."""
    if event.nova:
        return event.nova
    return "" if event.kind is Kind.HOOK_FAILURE else FLEET


def _whose(scope: str) -> str:
    return "the fleet" if scope == FLEET else scope


def _delay(cooling: Cooling, scope: str, expires_ms: int) -> Verdict:
    return unsafe(
        f"{_whose(scope)} cools down after {cooling.reason}",
        expires_ms,
        Action.DELAY,
        cooling.until_ms,
    )
