"""The circuit breaker of one upstream: one table, pure. Over the whole fleet there is one each.

::

    closed ──5 failures in a row──▶ open ──30 s, then the next request──▶ half_open
      ▲                              ▲                                      │
      └──the probe was answered──────┼──────────────────────────────────────┤
                                     └──the probe failed: twice as long─────┘

Half open, one request in the whole fleet is let through, the probe; its permit's lease is its time
limit, so a dead probe gives its place to the next request. What was sent before the breaker opened
and ends now says nothing about now.

The state is in the store, and `scripts/breaker.lua` decides there, in the same call that grants or
releases. This table is what it has to agree with: tests run the same cases against both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from novawf.errors import CorruptState, IllegalTransition

State = Literal["closed", "open", "half_open"]
Event = Literal["ask", "ok", "failed", "answered", "void"]
"""`ask`: a request wants to be sent; the others are how one ended (`request.Event`)."""

_MOST_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When it opens, and for how long."""

    failures: int = 5
    open_ms: int = 30_000
    open_cap_ms: int = 600_000


@dataclass(frozen=True, slots=True)
class Breaker:
    """One upstream's breaker. Times are fleet ms."""

    state: State = "closed"
    failures: int = 0
    """In a row."""
    open_until_ms: int = 0
    openings: int = 0
    """Since it was closed last: each is twice as long as the one before."""
    probe: str = ""
    """Permit of the probe."""
    probe_until_ms: int = 0

    def pack(self) -> str:
        """As the store keeps it."""
        return (
            f"{self.state}|{self.failures}|{self.open_until_ms}|{self.openings}|{self.probe}"
            f"|{self.probe_until_ms}"
        )

    @classmethod
    def parse(cls, upstream: str, packed: str | None) -> Breaker:
        """Raises CorruptState; an upstream that the store knows nothing of is closed."""
        if packed is None:
            return cls()
        try:
            state, failures, until, openings, probe, probe_until = packed.split("|")
            numbers = [int(part) for part in (failures, until, openings, probe_until)]
        except ValueError:
            raise _corrupt(upstream, packed) from None
        if state not in ("closed", "open", "half_open") or min(numbers) < 0:
            raise _corrupt(upstream, packed)
        return cls(state, numbers[0], numbers[1], numbers[2], probe, numbers[3])  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Moment:
    """Which request, and when (fleet ms)."""

    now_ms: int
    permit: str
    lease_ms: int = 0
    """How long it may take; of an `ask`."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Of an `ask`: whether it is let through, or how long it has to wait at least."""

    admitted: bool = True
    wait_ms: int = 0


NOTHING = Effect()

Step = Callable[[Breaker, Moment, BreakerRules], tuple[Breaker, Effect]]


def step(breaker: Breaker, event: Event, at: Moment, rules: BreakerRules) -> tuple[Breaker, Effect]:
    """What an event makes of it. Raises IllegalTransition for one that the table has not."""
    try:
        move = TRANSITIONS[breaker.state, event]
    except KeyError:
        raise IllegalTransition(f"breaker: {event!r} in state {breaker.state!r}") from None
    return move(breaker, at, rules)


def _stay(breaker: Breaker, _at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return breaker, NOTHING


def _forget_failures(breaker: Breaker, _at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return replace(breaker, failures=0), NOTHING


def _count_failure(breaker: Breaker, at: Moment, rules: BreakerRules) -> tuple[Breaker, Effect]:
    counted = replace(breaker, failures=breaker.failures + 1)
    return (_opened(counted, at, rules) if counted.failures >= rules.failures else counted), NOTHING


def _probe_when_due(breaker: Breaker, at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return _probe_after(breaker, breaker.open_until_ms, at)


def _probe_when_dead(breaker: Breaker, at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return _probe_after(breaker, breaker.probe_until_ms, at)


def _probe_after(breaker: Breaker, due_ms: int, at: Moment) -> tuple[Breaker, Effect]:
    if at.now_ms < due_ms:
        return breaker, Effect(admitted=False, wait_ms=due_ms - at.now_ms)
    probe_until_ms = at.now_ms + at.lease_ms
    return (
        replace(breaker, state="half_open", probe=at.permit, probe_until_ms=probe_until_ms),
        NOTHING,
    )


def _of_probe(move: Step) -> Step:
    """What only the probe can bring about."""

    def moved(breaker: Breaker, at: Moment, rules: BreakerRules) -> tuple[Breaker, Effect]:
        return move(breaker, at, rules) if at.permit == breaker.probe else (breaker, NOTHING)

    return moved


def _close(_breaker: Breaker, _at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return Breaker(), NOTHING


def _open_again(breaker: Breaker, at: Moment, rules: BreakerRules) -> tuple[Breaker, Effect]:
    return _opened(breaker, at, rules), NOTHING


def _another_probe(breaker: Breaker, at: Moment, _rules: BreakerRules) -> tuple[Breaker, Effect]:
    return (
        replace(breaker, state="open", open_until_ms=at.now_ms, probe="", probe_until_ms=0),
        NOTHING,
    )


def _opened(breaker: Breaker, at: Moment, rules: BreakerRules) -> Breaker:
    doublings = min(breaker.openings, _MOST_DOUBLINGS)
    length_ms = min(rules.open_cap_ms, rules.open_ms * 2**doublings)
    return replace(
        breaker,
        state="open",
        openings=breaker.openings + 1,
        open_until_ms=at.now_ms + length_ms,
        probe="",
        probe_until_ms=0,
    )


TRANSITIONS: Mapping[tuple[State, Event], Step] = {
    ("closed", "ask"): _stay,
    ("closed", "ok"): _forget_failures,
    ("closed", "failed"): _count_failure,
    ("closed", "answered"): _stay,
    ("closed", "void"): _stay,
    ("open", "ask"): _probe_when_due,
    ("open", "ok"): _stay,
    ("open", "failed"): _stay,
    ("open", "answered"): _stay,
    ("open", "void"): _stay,
    ("half_open", "ask"): _probe_when_dead,
    ("half_open", "ok"): _of_probe(_close),
    ("half_open", "failed"): _of_probe(_open_again),
    ("half_open", "answered"): _of_probe(_close),
    ("half_open", "void"): _of_probe(_another_probe),
}


def _corrupt(upstream: str, packed: str) -> CorruptState:
    return CorruptState(
        f"the breaker of {upstream} holds {packed[:100]!r}, which is no state of it: nothing "
        f"is sent there; run: novawf limits --reset {upstream}"
    )
