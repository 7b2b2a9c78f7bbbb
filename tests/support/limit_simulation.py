"""Simulated hours of callers, crashes and clocks before the real permits in a real store.

Time is a `ManualClock`, moved from event to event; everything else is as in the fleet: the line of
callers, the ledger and its scripts. What is checked is what the callees see: when each request
began, at most a second after its grant, and when it ended.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from novawf.clock import ManualClock
from novawf.limits.config import LimitSettings
from novawf.limits.ledger import Denied, Outcome, Permit, PermitLedger, Release, Request
from novawf.limits.request import ApiAnswer
from novawf.limits.waiting import Ticket, WaitingLine
from novawf.tasks.model import Priority

HOUR_MS = 3_600_000
_AT_ONCE = 64


@dataclass(slots=True)
class Caller:
    """Always wants to send another request."""

    name: str
    tier: str
    limit: str
    permit_id: str = ""

    @property
    def wants(self) -> tuple[str, bool]:
        return self.limit, self.tier == "critical"


@dataclass(slots=True)
class Seen:
    """One request as its callee saw it (ms)."""

    began_ms: int
    ended_ms: int
    limit: str


@dataclass(slots=True)
class Chances:
    """How often what goes wrong, per permit or per hour."""

    reply_lost: float = 0.01
    limiter_dies_with_it: float = 0.5
    holder_dies: float = 0.01
    starts_too_late: float = 0.005
    fails: float = 0.02
    limiter_crashes_per_h: float = 6.0
    store_restarts_per_h: float = 2.0
    clock_jumps_per_h: float = 6.0


@dataclass
class Simulation:
    """150 callers of all tiers; `connect` gives a client, `restart` a store that was killed."""

    settings: LimitSettings
    connect: Callable[[], Any]
    restart: Callable[[], None]
    callers: int = 150
    seed: int = 1
    request_ms: int = 2_000
    chances: Chances = field(default_factory=Chances)
    seen: list[Seen] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)

    async def run(self, hours: float) -> None:
        """Let so much time pass."""
        self.random = random.Random(self.seed)
        self.clock = ManualClock()
        self.began_ms = self.clock.now_ms()
        self.line: WaitingLine[Caller] = WaitingLine()
        self.redis = self.connect()
        self.ledger = PermitLedger(self.redis, self.clock, self.settings)
        self.events: list[tuple[int, int, Any]] = []
        self.number = 0
        limits = ["", *self.settings.named]
        for number in range(self.callers):
            tier = list(Priority)[number % len(Priority)]
            self._join(Caller(f"caller-{number}", tier, limits[number % len(limits)]))
        end_ms = self.began_ms + round(hours * HOUR_MS)
        for rate, event in (
            (self.chances.limiter_crashes_per_h, self._limiter_crashes),
            (self.chances.store_restarts_per_h, self._store_restarts),
            (self.chances.clock_jumps_per_h, self._clock_jumps),
        ):
            for _ in range(round(rate * hours)):
                self._at(self.random.randrange(self.began_ms, end_ms), event)
        while self.clock.now_ms() < end_ms:
            while self.events and self.events[0][0] <= self.clock.now_ms():
                await heapq.heappop(self.events)[2]()
            free_in_ms = await self._pump()
            due_ms = self.events[0][0] if self.events else end_ms
            next_ms = min(due_ms, self.clock.now_ms() + free_in_ms, end_ms)
            self.clock.advance(max(0, next_ms - self.clock.now_ms()))
        await self.redis.aclose()

    # -- the limiter ------------------------------------------------------------------------------

    async def _pump(self) -> int:
        """One round as the limiter's: many callers a call; ms until a permit could be free."""
        waits: dict[tuple[str, bool], int] = {}
        while batch := self._next(waits):
            answers = await self.ledger.grant_many(
                [Request(t.item.permit_id, t.item.limit, t.item.tier == "critical") for t in batch]
            )
            if any(isinstance(a, Permit) for a in answers) and self._comes(self.chances.reply_lost):
                self.happened["replies lost"] += 1
                if not self._comes(self.chances.limiter_dies_with_it):
                    repeated = await self.ledger.grant_many(
                        [Request(t.item.permit_id, t.item.limit) for t in batch]
                    )
                    for answer, again in zip(answers, repeated, strict=True):
                        assert not isinstance(answer, Permit) or again == answer
                    answers = repeated
                else:  # the callers ask the new one, and what was granted is nobody's
                    await self._limiter_crashes()
                    return 1
            for ticket, answer in zip(batch, answers, strict=True):
                if isinstance(answer, Denied):
                    assert answer.wait_ms > 0
                    waits.setdefault(ticket.item.wants, answer.wait_ms)
                else:
                    self.line.leave(ticket)
                    self._granted(ticket.item, answer)
        return min(waits.values(), default=HOUR_MS)

    def _next(self, waits: dict[tuple[str, bool], int]) -> list[Ticket[Caller]]:
        asking: Iterator[Ticket[Caller]] = (
            t for t in self.line.tickets() if t.item.wants not in waits
        )
        return list(islice(asking, _AT_ONCE))

    def _join(self, caller: Caller) -> None:
        self.number += 1
        caller.permit_id = f"permit-{self.number}"
        self.line.join(caller.tier, caller)

    # -- the holders ------------------------------------------------------------------------------

    def _granted(self, caller: Caller, permit: Permit) -> None:
        self.happened["granted"] += 1
        if self._comes(self.chances.starts_too_late):
            self.happened["started too late"] += 1
            self._at(permit.start_by_ms + 1, lambda: self._voided(caller, permit))
            return
        began_ms = self.random.randint(permit.granted_at_ms, permit.start_by_ms)
        if self._comes(self.chances.holder_dies):
            # Nobody reports it, and its request may run for as long as it may.
            self.happened["holders died"] += 1
            ended_ms = began_ms + permit.timeout_ms
            self._at(ended_ms + 5_000, lambda: self._back(caller))
        else:
            length_ms = round(self.random.expovariate(1 / self.request_ms))
            ended_ms = began_ms + min(length_ms, permit.timeout_ms)
            self._at(ended_ms, lambda: self._released(caller, permit))
        self.seen.append(Seen(began_ms, ended_ms, caller.limit))

    async def _released(self, caller: Caller, permit: Permit) -> None:
        failed = self._comes(self.chances.fails)
        outcome = Outcome.FAILED if failed else Outcome.OK
        answer = ApiAnswer(ok=not failed, status=404 if failed else 200)
        found = await self.ledger.release(permit.id, outcome, permit.limit, answer)
        assert found is Release.RELEASED
        if self._comes(self.chances.reply_lost):
            again = await self.ledger.release(permit.id, outcome, permit.limit, answer)
            assert again is Release.NO_LEASE
        await self._back(caller)

    async def _voided(self, caller: Caller, permit: Permit) -> None:
        await self.ledger.release(permit.id, Outcome.VOID, permit.limit)
        await self._back(caller)

    async def _back(self, caller: Caller) -> None:
        self._join(caller)

    # -- what goes wrong --------------------------------------------------------------------------

    async def _limiter_crashes(self) -> None:
        """Its line is lost; everybody asks the new one, under new ids."""
        self.happened["limiter crashes"] += 1
        await self.redis.aclose()
        self.redis = self.connect()
        self.ledger = PermitLedger(self.redis, self.clock, self.settings)
        waiting = [ticket.item for ticket in self.line.tickets()]
        self.line = WaitingLine()
        self.random.shuffle(waiting)
        for caller in waiting:
            self._join(caller)

    async def _store_restarts(self) -> None:
        self.happened["store restarts"] += 1
        await self.redis.aclose()
        self.restart()
        self.redis = self.connect()
        self.ledger = PermitLedger(self.redis, self.clock, self.settings)

    async def _clock_jumps(self) -> None:
        """The wall clock; fleet time is made of another one."""
        self.happened["wall clock jumps"] += 1
        self.clock.wall_skew_s = self.random.uniform(-600, 600)

    def _comes(self, chance: float) -> bool:
        return self.random.random() < chance

    def _at(self, at_ms: int, event: Any) -> None:
        self.number += 1
        heapq.heappush(self.events, (at_ms, self.number, event))


def most_in_any(times_ms: list[int], window_ms: int) -> int:
    """The most events in any window of this length, its ends included."""
    most, first = 0, 0
    ordered = sorted(times_ms)
    for last, at_ms in enumerate(ordered):
        while at_ms - ordered[first] > window_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


def most_at_once(spans_ms: list[tuple[int, int]]) -> int:
    """The most that ran at one moment; one that ends and one that begins then do not overlap."""
    changes = [(began, 1) for began, _ in spans_ms] + [(ended, -1) for _, ended in spans_ms]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most
