"""What an explanation is, the table of all reasons, and how times are told in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from novawf.clock import iso, parse_iso

REASONS: Mapping[str, str] = {
    # nothing holds it
    "ready": "next in line, and a Nova is free to take it",
    "in_hand": "a Nova works on it under a lease",
    "completed": "it is done",
    "working": "the Nova has a task in hand; for the fleet: nothing waits",
    "idle": "nothing may start: no task is pending, or all wait for something of their own",
    # its place in the queue
    "queue": "others come first, by tier and time",
    "busy": "every Nova has a task in hand",
    "no_nova": "no Nova is able to take anything",
    "nova_busy": "aimed at a Nova that has a task in hand",
    "nova_paused": "aimed at a Nova that is paused",
    "nova_held": "aimed at a Nova that a safety mechanism holds",
    "nova_starting": "aimed at a Nova that is starting",
    "nova_restarting": "aimed at a Nova that died and is started again",
    "nova_recovering": "aimed at a Nova that is in error_recovery",
    "nova_silent": "aimed at a Nova that shows no sign of life",
    "nova_quarantined": "aimed at a Nova that was restarted too often",
    "nova_ended": "aimed at a Nova that has ended",
    "nova_unknown": "aimed at a Nova that is not in the fleet",
    # what the task itself waits for
    "earliest_start": "not before the time given by `at`",
    "retry_backoff": "an attempt failed; the next one comes after a pause",
    "dependency": "it comes after a task that is not completed; or was blocked with it",
    "awaiting_approval": "it may not start before it is approved",
    "deadline": "its deadline passed before it was done",
    # in hand, and not going on
    "api_limit": "its work waits for a permit of the API limiter",
    "cancelling": "its Nova was told to end it",
    "owner_silent": "its owner shows no sign of life; the lease decides",
    "owner_lost": "its owner died; what it ran is being ended",
    "lease_expired": "its owner was silent for a whole lease",
    # ended without success
    "failed": "its last attempt failed",
    "not_accepted": "the work was done, its acceptance check refused it",
    "cancelled": "somebody cancelled it",
    "no_executor": "it names no work that something can run",
    "quarantined": "the task, or the Nova, was set aside after too many crashes",
    "blocked": "it ended without success",
    # what holds the fleet, or the Nova
    "no_fleet": "no fleet runs",
    "store_down": "the store does not answer",
    "starting": "it is starting",
    "restarting": "it died and is started again",
    "recovering": "something failed; it puts things right and goes on",
    "silent": "it shows no sign of life",
    "ended": "it has ended and is not started again",
    "stopped": "the emergency stop is on",
    "paused": "it was paused",
    "verdict_expired": "no safety verdict holds: nobody renewed it",
    "unsafe": "a safety mechanism is against work",
    "cooldown": "frosty lets things cool down after a violation; critical work goes on",
    "meditation": "really_chill_willy lets the fleet rest after too many emergencies",
    "overload": "the machine cannot take any more",
    "hook_off": "a hook of its was shut off, because it loops or starts agents",
    "emergency": "the API was called without a permit",
    "budget": "a budget is spent",
}
"""Every reason code there is, and what it means (docs/concepts.md lists them)."""

_WORDS = ("the", "no", "one", "nothing")
"""Words that a clause may begin with, other than a name or a number."""

MECHANISMS: Mapping[str, tuple[str, str]] = {
    "frosty": ("cooldown", "the cooldown ends by itself"),
    "really_chill_willy": ("meditation", "the meditation ends by itself"),
    "hook_health": ("hook_off", "the hook recovers by itself; `novawf hook status`"),
    "api_guardian": ("budget", "its window ends, or a higher cap; `novawf budget`"),
    "stream_monitor": ("unsafe", "the store answers, has room, and its streams are read"),
    "gate": ("unsafe", "the store takes writes again"),
}
"""Safety mechanism → the reason it stands for, and what would release it. One that is not listed is
`unsafe`, released by its own change of mind."""

OTHERWISE: Mapping[tuple[str, str], tuple[str, str]] = {
    ("api_guardian", "halt"): ("emergency", "the emergency ends by itself; `novawf safety`"),
    ("really_chill_willy", ""): ("overload", "the load goes down"),
}
"""What a mechanism stands for when it halts, and when it cannot tell how long (action '')."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why, in one sentence, and what would release it."""

    reason: str
    """A key of REASONS."""
    clause: str
    """The sentence without its full stop."""
    released_by: str = ""
    """What would let it go on, in words; empty when nothing needs to."""
    until: str | None = None
    """When that is known: ISO 8601."""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The clause as a sentence; names of Novas and tasks keep their spelling."""
        first, _, rest = self.clause.partition(" ")
        return f"{first.capitalize() if first in _WORDS else first} {rest}."

    def short(self) -> dict[str, Any]:
        """As `status` shows it."""
        return {
            "reason": self.reason,
            "sentence": self.sentence,
            "released_by": self.released_by or None,
            "until": self.until,
        }

    def document(self, subject: str, kind: str) -> dict[str, Any]:
        """As `novawf why --json` shows it."""
        return {"subject": subject, "kind": kind, **self.short(), "details": dict(self.details)}


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment in both times: evidence is in fleet ms, people read wall time."""

    now_ms: int
    wall_s: float

    def iso(self, fleet_ms: int) -> str:
        """Fleet time as wall time."""
        return iso(self.wall_s + (fleet_ms - self.now_ms) / 1000)

    def since(self, fleet_ms: int) -> str:
        """`since 2026-11-21T08:00:00Z (3 min)`."""
        return f"since {self._clock(fleet_ms)} ({span(self.now_ms - fleet_ms)})"

    def until(self, fleet_ms: int) -> str:
        """`until 2026-11-21T08:00:00Z (in 12 s)`; for what is past: `… (4.0 s ago)`."""
        return f"until {self.when(fleet_ms)}"

    def when(self, fleet_ms: int) -> str:
        """`2026-11-21T08:00:00Z (in 12 s)`, or `… (4.0 s ago)`."""
        left_ms = fleet_ms - self.now_ms
        relation = f"in {span(left_ms)}" if left_ms >= 0 else f"{span(-left_ms)} ago"
        return f"{self._clock(fleet_ms)} ({relation})"

    def ago(self, fleet_ms: int) -> str:
        """`2.0 s ago`."""
        return f"{span(self.now_ms - fleet_ms)} ago"

    def fleet_ms(self, text: str) -> int | None:
        """An ISO 8601 wall time as fleet time; None for what is none."""
        try:
            return self.now_ms + round((parse_iso(text) - self.wall_s) * 1000)
        except ValueError:
            return None

    def _clock(self, fleet_ms: int) -> str:
        # To the nearest second: `at` 21:00:00 is 20:59:59.999 by way of two clocks in ms.
        return f"{self.iso(fleet_ms + 500)[:19]}Z"


def span(ms: int) -> str:
    """A time span for people: `0.4 s`, `12 s`, `3 min`, `5.0 h`, `2.1 d`."""
    seconds = max(0, ms) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def counted(number: int, noun: str = "task") -> str:
    """`1 task`, `1,200 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(parts: list[str], most: int = 3) -> str:
    """`a, b and c`; of more than `most` the rest as a number."""
    if len(parts) > most:
        parts = [*parts[:most], f"{len(parts) - most} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def joined(own: Explanation, other: Explanation | None) -> Explanation:
    """The first, which also says the second: both would have to be released."""
    if other is None:
        return own
    return Explanation(
        own.reason,
        f"{own.clause}; besides, {other.clause}",
        f"{own.released_by}, and then {other.released_by}"
        if own.released_by and other.released_by
        else own.released_by or other.released_by,
        own.until,
        {**own.details, "also": other.reason},
    )
