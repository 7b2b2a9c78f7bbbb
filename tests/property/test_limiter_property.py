"""Whatever callers, holders and clocks do, the limits hold as the API's side sees them.

The state machine drives the real scripts on a real store with a clock of its own. A request may
start at any moment from its grant to one second later, and a holder that died may have left a
request running for its whole time-out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gate import open_gate
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from novawf.clock import ManualClock
from novawf.limits.config import LimitSettings, NamedLimit
from novawf.limits.ledger import Denied, Outcome, Permit, PermitLedger, Release, Request
from novawf.limits.request import ApiAnswer
from novawf.store.connect import StoreAddress, connect

LIMITS = LimitSettings(
    requests_per_minute=3,
    requests_per_hour=7,
    concurrent=2,
    critical_share=0.4,
    named={
        "a": NamedLimit(requests_per_minute=2, concurrent=1),
        "a/b": NamedLimit(requests_per_hour=3),
    },
)
NAMES = st.sampled_from(["", "a", "a/b"])
TIMEOUT_MS = 30_000

STEPS_MS = st.one_of(
    st.integers(0, 2000),
    st.integers(2000, 70_000),
    st.sampled_from([1, 1000, 30_000, 36_000, 60_000, 61_000, 61_001, 3_600_000, 3_601_001]),
)


class SteppedClock(ManualClock):
    """Fleet time that may be set back, and how much time has really passed (requests run in it)."""

    passed_ms = 0

    def advance(self, ms: int) -> None:
        super().advance(ms)
        self.passed_ms += max(0, ms)


class LimiterMachine(RuleBasedStateMachine):
    """Callers, holders and time against the ledger."""

    address: StoreAddress
    permits = Bundle("permits")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = SteppedClock()
        self.really_granted_ms: dict[str, int] = {}
        self.asked = 0
        self.granted: dict[str, Permit] = {}
        self.released: set[str] = set()
        self.connect()
        self.run(self.redis.flushall())
        self.run(open_gate(self.redis))

    def connect(self) -> None:
        self.redis = connect(self.address, single=True)
        self.ledger = PermitLedger(self.redis, self.clock, LIMITS)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    def ask(self, limit: str = "", *, critical: bool = False) -> Permit | Denied:
        (answer,) = self.ask_for([(limit, critical)])
        return answer

    def ask_for(self, wanted: list[tuple[str, bool]]) -> list[Permit | Denied]:
        requests = []
        for limit, critical in wanted:
            self.asked += 1
            requests.append(Request(f"permit-{self.asked}", limit, critical))
        answers = self.run(self.ledger.grant_many(requests))
        for answer in answers:
            if isinstance(answer, Permit):
                self.granted[answer.id] = answer
                self.really_granted_ms.setdefault(answer.id, self.clock.passed_ms)
        return answers

    def give_back(self, permit: Permit, outcome: Outcome) -> Release:
        # What a failed request says to the breaker is another table's matter.
        answer = ApiAnswer(ok=outcome is Outcome.OK, status=404)
        found: Release = self.run(self.ledger.release(permit.id, outcome, permit.limit, answer))
        return found

    def contents(self) -> list[Any]:
        async def read() -> list[Any]:
            names = sorted(await self.redis.keys("*"))
            return [(name, await self.redis.dump(name)) for name in names]

        return self.run(read())

    @rule(target=permits, limit=NAMES, critical=st.booleans())
    def acquire(self, limit: str, critical: bool) -> Any:
        answer = self.ask(limit, critical=critical)
        if isinstance(answer, Denied):
            assert answer.wait_ms > 0
            return multiple()
        assert answer.granted_at_ms == self.clock.now_ms()
        return answer

    @rule(target=permits, wanted=st.lists(st.tuples(NAMES, st.booleans()), min_size=2, max_size=6))
    def acquire_many(self, wanted: list[tuple[str, bool]]) -> Any:
        """In one call it is as if they had asked one after the other."""
        answers = self.ask_for(wanted)
        for want, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Denied):
                assert answer.wait_ms > 0
                assert isinstance(self.ask(want[0], critical=want[1]), Denied)
        return multiple(*(answer for answer in answers if isinstance(answer, Permit)))

    @rule(permit=permits)
    def acquire_again_after_a_lost_reply(self, permit: Permit) -> None:
        if self.clock.passed_ms - self.really_granted_ms[permit.id] > 3_600_000:
            return  # nobody asks that late; the grant has left the books
        before = self.contents()
        assert self.run(self.ledger.grant(permit.id, permit.limit)) == permit
        assert self.contents() == before

    @rule(target=ended, permit=consumes(permits), outcome=st.sampled_from(list(Outcome)))
    def release(self, permit: Permit, outcome: Outcome) -> Permit:
        in_time = self.clock.now_ms() < permit.expires_at_ms
        released = self.give_back(permit, outcome) is Release.RELEASED
        # The lease may have been swept before the clock was set back.
        assert not released or in_time
        self.released.add(permit.id)
        return permit

    @rule(permit=ended, outcome=st.sampled_from(list(Outcome)))
    def release_again(self, permit: Permit, outcome: Outcome) -> None:
        found = self.give_back(permit, outcome)
        assert found is not Release.RELEASED

    @rule(permit=consumes(permits))
    def holder_dies(self, permit: Permit) -> None:
        """Nobody will release it; its request may run on."""

    @rule(ms=STEPS_MS)
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(ms=st.integers(1, 100_000))
    def clock_goes_back(self, ms: int) -> None:
        self.clock.advance(-ms)

    @rule(target=permits)
    def the_wait_is_exact(self) -> Any:
        answer = self.ask()
        if isinstance(answer, Denied):
            self.clock.advance(answer.wait_ms - 1)
            early = self.ask()
            assert early == Denied(1, answer.blocked_by) or answer.blocked_by == "clock"
            self.clock.advance(1)
            if answer.blocked_by == "clock":
                return multiple()
            answer = self.ask()
        assert isinstance(answer, Permit)
        return answer

    @rule()
    def limiter_is_created_anew(self) -> None:
        self.run(self.redis.aclose())
        self.connect()

    @precondition(lambda self: self.granted)
    @rule()
    def the_snapshot_agrees_and_changes_nothing(self) -> None:
        before = self.contents()
        snapshot = self.run(self.ledger.snapshot())
        assert self.contents() == before
        answer = self.ask()
        free = isinstance(answer, Permit)
        assert free == (snapshot.next_free_in_s == 0)
        if isinstance(answer, Denied):
            assert answer == Denied(round(snapshot.next_free_in_s * 1000), snapshot.blocked_by)

    @invariant()
    def no_window_holds_more_starts_than_allowed(self) -> None:
        """The worst case: the first of them started late, the last one at once."""
        for under, limit, window_ms in [
            ("", LIMITS.requests_per_minute, 60_000),
            ("", LIMITS.requests_per_hour, 3_600_000),
            ("a", 2, 60_000),
            ("a/b", 3, 3_600_000),
        ]:
            at_ms = sorted(p.granted_at_ms for p in self.granted.values() if is_under(p, under))
            for first, last in zip(at_ms, at_ms[limit:], strict=False):
                latest_start_of_first = first + 1000
                assert last - latest_start_of_first > window_ms

    @invariant()
    def never_more_requests_at_once_than_allowed(self) -> None:
        """A request runs until its release, or its time-out after the latest start."""
        running = [
            self.granted[permit_id]
            for permit_id, at_ms in self.really_granted_ms.items()
            if permit_id not in self.released and self.clock.passed_ms <= at_ms + 1000 + TIMEOUT_MS
        ]
        assert len(running) <= LIMITS.concurrent
        assert sum(is_under(permit, "a") for permit in running) <= 1


def is_under(permit: Permit, limit: str) -> bool:
    """Whether it was granted by this limit too."""
    return permit.limit.startswith(limit)


def test_the_limits_hold_whatever_happens(valkey_server: StoreAddress) -> None:
    class Machine(LimiterMachine):
        address = valkey_server

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
