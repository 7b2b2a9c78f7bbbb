"""What the breaker does, cell by cell: cases for the table in Python and for the script in Lua."""

from __future__ import annotations

from typing import NamedTuple

from novawf.limits.breaker import Breaker, BreakerRules, Effect, Event

RULES = BreakerRules(failures=3, open_ms=1000, open_cap_ms=5000)
NOW = 1_000_000
LEASE = 36_000

CLOSED = Breaker()
FAILED_TWICE = Breaker("closed", 2)
OPEN = Breaker("open", 3, NOW + 400, 1)
DUE = Breaker("open", 3, NOW, 1)
PROBING = Breaker("half_open", 3, NOW - 100, 1, "p", NOW + 300)
DEAD_PROBE = Breaker("half_open", 3, NOW - 100, 1, "gone", NOW)

ADMIT = Effect()


class Case(NamedTuple):
    """One cell, or one side of a cell's condition. The request is `p`."""

    before: Breaker
    event: Event
    after: Breaker
    effect: Effect = ADMIT


def opened(openings: int, length_ms: int, failures: int = 3) -> Breaker:
    return Breaker("open", failures, NOW + length_ms, openings)


def probed_by_p(before: Breaker) -> Breaker:
    return Breaker("half_open", 3, before.open_until_ms, 1, "p", NOW + LEASE)


ANOTHERS = Breaker("half_open", 3, NOW - 100, 1, "other", NOW + 300)

CASES = {
    "closed lets everybody through": Case(CLOSED, "ask", CLOSED),
    "closed stays so when all goes well": Case(CLOSED, "ok", CLOSED),
    "a success forgets the failures before it": Case(FAILED_TWICE, "ok", CLOSED),
    "a failure is counted": Case(CLOSED, "failed", Breaker("closed", 1)),
    "the last failure of the row opens": Case(FAILED_TWICE, "failed", opened(1, 1000)),
    "advice is no failure": Case(FAILED_TWICE, "answered", FAILED_TWICE),
    "what was not sent says nothing": Case(FAILED_TWICE, "void", FAILED_TWICE),
    "open refuses until its time": Case(OPEN, "ask", OPEN, Effect(False, 400)),
    "then the next one is the probe": Case(DUE, "ask", probed_by_p(DUE)),
    "an old success does not close it": Case(OPEN, "ok", OPEN),
    "an old failure does not prolong it": Case(OPEN, "failed", OPEN),
    "an old refusal does not close it": Case(OPEN, "answered", OPEN),
    "an unused permit from before says nothing": Case(OPEN, "void", OPEN),
    "nobody passes beside the probe": Case(PROBING, "ask", PROBING, Effect(False, 300)),
    "a dead probe gives its place away": Case(DEAD_PROBE, "ask", probed_by_p(DEAD_PROBE)),
    "the probe's success closes": Case(PROBING, "ok", CLOSED),
    "the probe's failure opens for twice as long": Case(PROBING, "failed", opened(2, 2000)),
    "the doubling has a cap": Case(
        Breaker("half_open", 3, NOW - 100, 9, "p", NOW + 300), "failed", opened(10, 5000)
    ),
    "a probe that was answered shows health": Case(PROBING, "answered", CLOSED),
    "a probe that was not sent lets another try": Case(PROBING, "void", Breaker("open", 3, NOW, 1)),
    "another's success is no probe's": Case(ANOTHERS, "ok", ANOTHERS),
    "another's failure is no probe's": Case(ANOTHERS, "failed", ANOTHERS),
    "another's refusal is no probe's": Case(ANOTHERS, "answered", ANOTHERS),
    "another's unused permit is no probe's": Case(ANOTHERS, "void", ANOTHERS),
}
