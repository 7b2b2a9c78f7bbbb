"""Whatever callers, deaths, clocks and caps do, the budgets are what a plain list of calls says.

The state machine drives the real scripts on a real store. Its model keeps every call in a list and
adds them up from scratch; next to it stands the truth, which only the provider knows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from novawf.clock import ManualClock
from novawf.errors import BudgetSpent, NotFound, Refused
from novawf.limits.budget import KEPT_MS, KEYS, Budgets
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_repair import inspect, plan
from novawf.limits.budget_scopes import Payer, all_caps, field, window_numbers
from novawf.limits.prices import Amount
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect

HOUR_MS = 3_600_000
LEASE_MS = 60_000
UNITS = ("usd", "tokens")

PAYERS = st.builds(
    Payer,
    nova=st.sampled_from(["", "torch", "echo"]),
    provider=st.sampled_from(["", "anthropic"]),
    task=st.sampled_from(["", "T-1-1", "T-1-2"]),
    task_usd=st.sampled_from([None, 0.000_2, 0.000_05]),
)
AMOUNTS = st.builds(Amount, st.integers(0, 100), st.integers(0, 50))
CAP_USD = st.one_of(st.none(), st.integers(0, 400).map(lambda micro: micro / 1e6))
CAP_TOKENS = st.one_of(st.none(), st.integers(0, 300))
CAPS = st.builds(
    Caps,
    usd_per_hour=CAP_USD,
    usd_per_day=CAP_USD,
    usd_total=CAP_USD,
    tokens_per_hour=CAP_TOKENS,
    tokens_total=CAP_TOKENS,
)
STEPS_MS = st.sampled_from(
    [0, 1, 1000, LEASE_MS, 20 * LEASE_MS, HOUR_MS, 5 * HOUR_MS, 25 * HOUR_MS, KEPT_MS, 2 * KEPT_MS]
)


NOTHING = Amount(0, 0)


@dataclass(slots=True, eq=False)
class Call:
    """One paid call, in the model."""

    id: str
    payer: Payer
    reserved: Amount
    at_ms: int
    amount: Amount
    """What it should count for."""
    truth: Amount = NOTHING
    """What the provider will ask for it: nothing until it is made."""
    state: str = "open"
    told: bool = False
    ended_ms: int = 0
    forgotten: bool = False

    def excess(self) -> int:
        """What it really cost beyond what anybody was told, in micro-USD."""
        return 0 if self.told else max(0, self.truth.micro_usd - self.reserved.micro_usd)


class BudgetMachine(RuleBasedStateMachine):
    """Callers, deaths, clocks and caps against the budgets."""

    address: StoreAddress
    made = Bundle("made")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.settings = BudgetSettings(unconfirmed_after_s=LEASE_MS / 1000)
        self.calls: list[Call] = []
        self.swept_hour = 0
        self.gone_tasks: set[str] = set()
        self.connect()
        self.run(self.redis.flushall())
        self.run(self.redis.hset(keys.TASK_STATE, mapping={"T-1-1": "…", "T-1-2": "…"}))

    def connect(self) -> None:
        self.redis: Any = connect(self.address, single=True)
        self.budgets = Budgets(self.redis, self.clock, self.settings)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    # -- the model --------------------------------------------------------------------------------

    def sums(self) -> Counter[str]:
        """Every field that the budgets should have, added up from scratch."""
        found: Counter[str] = Counter()
        hour_ms, day_ms = HOUR_MS, 24 * HOUR_MS
        for call in self.calls:
            at = window_numbers(call.at_ms)
            for scope, name in (
                ("fleet", "-"),
                ("nova", call.payer.nova),
                ("provider", call.payer.provider),
            ):
                for window in ("hour", "day", "total") if name else ():
                    for unit, amount in zip(UNITS, call.amount, strict=True):
                        if window == "hour" and at[0] < self.swept_hour:
                            continue
                        if window == "day" and at[1] < self.swept_hour * hour_ms // day_ms:
                            continue
                        found[field(scope, name, window, unit, *at)] += amount
            if call.payer.task and call.payer.task not in self.gone_tasks:
                for unit, amount in zip(UNITS, call.amount, strict=True):
                    found[f"{call.payer.task}|{unit}"] += amount
        return found

    def fits(self, amount: Amount, payer: Payer) -> bool:
        sums, at = self.sums(), window_numbers(self.clock.now_ms())
        for scope, name, window, unit, cap in all_caps(self.settings, payer):
            asked = amount[UNITS.index(unit)]
            place = f"{name}|{unit}" if scope == "task" else field(scope, name, window, unit, *at)
            if cap is not None and asked and sums[place] + asked > cap:
                return False
        return True

    def everything(self) -> list[Any]:
        async def read() -> list[Any]:
            return [
                *[await self.redis.hgetall(key) for key in KEYS[:4]],
                *[await self.redis.zrange(key, 0, -1, withscores=True) for key in KEYS[4:]],
            ]

        return self.run(read())

    def end(self, call: Call, state: str, amount: Amount) -> None:
        call.state, call.amount, call.ended_ms = state, amount, self.clock.now_ms()

    # -- callers ----------------------------------------------------------------------------------

    @rule(target=made, amount=AMOUNTS, payer=PAYERS)
    def reserve(self, amount: Amount, payer: Payer) -> Any:
        if payer.task in self.gone_tasks:
            payer = payer._replace(task="")
        name = f"r{len(self.calls)}"
        now_ms = self.clock.now_ms()
        before = self.everything()
        try:
            self.run(self.budgets.reserve(name, amount, payer))
        except BudgetSpent:
            assert not self.fits(amount, payer)
            assert self.everything() == before
            return multiple()
        except Refused:
            assert window_numbers(now_ms)[0] < self.swept_hour
            return multiple()
        assert self.fits(amount, payer)
        self.calls.append(Call(name, payer, amount, now_ms, amount))
        return self.calls[-1]

    @rule(call=made)
    def reserve_again_after_a_lost_reply(self, call: Call) -> None:
        if call.forgotten:
            return  # nobody asks that late
        before = self.everything()
        try:
            self.run(self.budgets.reserve(call.id, call.reserved, call.payer))
            assert call.state == "open"
        except Refused as refused:
            assert call.state != "open" or "clock" in str(refused)
        assert self.everything() == before

    @rule(call=made, share=st.floats(0, 1))
    def the_call_costs_what_was_reserved_at_most(self, call: Call, share: float) -> None:
        if call.state == "open" and call.truth == Amount(0, 0):
            call.truth = Amount(int(call.reserved.micro_usd * share), 0)

    @rule(call=made, more=st.integers(1, 300))
    def the_call_costs_more_than_was_reserved(self, call: Call, more: int) -> None:
        if call.state == "open" and call.truth == Amount(0, 0):
            call.truth = Amount(call.reserved.micro_usd + more, call.reserved.tokens)

    @rule(call=made, knows=st.booleans(), twice=st.booleans())
    def settle(self, call: Call, knows: bool, twice: bool) -> None:
        """By its caller, in time, late, or woken up after somebody corrected it."""
        said = call.truth if knows else call.amount
        figures = tuple(said) if knows else (None, None)
        if call.forgotten:
            self.expect_unknown(self.budgets.settle(call.id, *figures))
            return
        if not knows and call.excess():
            return  # an excess of which nobody ever hears is nobody's to book
        assert self.run(self.budgets.settle(call.id, *figures)) == (not call.told)
        if not call.told:
            closed = call.state != "open"
            amount = Amount(*map(max, call.amount, said)) if closed else said
            self.end(call, "corrected" if call.state == "corrected" else "settled", amount)
            call.told = True
        if twice:
            before = self.everything()
            assert not self.run(self.budgets.settle(call.id, *figures))
            assert self.everything() == before

    @rule(call=made)
    def release_what_was_never_made(self, call: Call) -> None:
        if call.truth != Amount(0, 0):
            return
        if call.forgotten:
            self.expect_unknown(self.budgets.release(call.id))
            return
        assert self.run(self.budgets.release(call.id)) == (call.state == "open")
        if call.state == "open":
            self.end(call, "released", Amount(0, 0))

    @rule(call=made, guess=st.integers(0, 50))
    def correct_by_the_providers_log(self, call: Call, guess: int) -> None:
        """Or by a guess that is on the safe side."""
        evidence = Amount(call.truth.micro_usd + guess, call.truth.tokens)
        correcting = self.budgets.correct(call.id, *evidence, "log")
        if call.forgotten:
            self.expect_unknown(correcting)
            return
        young = call.state == "open" and self.clock.now_ms() - call.at_ms < LEASE_MS
        try:
            self.run(correcting)
        except Refused:
            assert young
            return
        assert not young
        if (call.state, call.amount) != ("corrected", evidence):
            self.end(call, "corrected", evidence)
        call.reserved = Amount(*map(max, call.reserved, call.truth))  # its excess is known now

    @rule(call=consumes(made))
    def its_caller_dies(self, call: Call) -> None:
        """Nobody ever says anything of it any more; the client's connection is gone too."""
        self.run(self.redis.aclose())
        self.connect()

    # -- the world --------------------------------------------------------------------------------

    @rule(ms=STEPS_MS)
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(hours=st.integers(1, 60))
    def the_clock_goes_back(self, hours: int) -> None:
        self.clock.advance(-hours * HOUR_MS)

    @rule(fleet=CAPS, nova=CAPS, echo=CAPS, provider=CAPS)
    def caps_change(self, fleet: Caps, nova: Caps, echo: Caps, provider: Caps) -> None:
        self.settings = BudgetSettings(
            **fleet.model_dump(),
            unconfirmed_after_s=LEASE_MS / 1000,
            nova=nova,
            novas={"echo": echo},
            providers={"anthropic": provider},
        )
        self.budgets = Budgets(self.redis, self.clock, self.settings)

    @rule(task=st.sampled_from(["T-1-1", "T-1-2"]))
    def a_task_leaves_the_store(self, task: str) -> None:
        self.run(self.redis.hdel(keys.TASK_STATE, task))
        self.gone_tasks.add(task)
        self.sweep()

    @rule()
    def sweep(self) -> None:
        self.run(self.budgets.sweep())
        before_ms = self.clock.now_ms() - KEPT_MS
        if self.calls:
            self.swept_hour = max(self.swept_hour, window_numbers(before_ms)[0])
        for call in self.calls:
            call.forgotten |= call.state != "open" and call.ended_ms < before_ms

    def expect_unknown(self, coroutine: Any) -> None:
        try:
            self.run(coroutine)
        except NotFound:
            return
        raise AssertionError("a reservation that was swept is known")

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def the_sums_are_those_of_the_calls(self) -> None:
        _, spent, tasks, kept, opened, ended = self.everything()
        assert {**spent, **tasks} == {name: str(value) for name, value in self.sums().items()}
        known = {call.id: call for call in self.calls if not call.forgotten}
        assert set(kept) == set(known)
        assert {name for name, _ in opened} == {i for i, c in known.items() if c.state == "open"}
        assert {name for name, _ in ended} == {i for i, c in known.items() if c.state != "open"}

    @invariant()
    def never_under_the_truth(self) -> None:
        """But for what calls cost beyond their reservation and nobody has said yet."""
        booked = sum(call.amount.micro_usd for call in self.calls)
        truth = sum(call.truth.micro_usd for call in self.calls)
        assert booked >= truth - sum(call.excess() for call in self.calls)

    @invariant()
    def nothing_is_broken(self) -> None:
        assert plan(self.run(inspect(self.redis)), self.clock.now_ms()) == []

    @invariant()
    def what_is_exhausted_lets_no_call_through(self) -> None:
        for spent in self.run(self.budgets.exhausted(novas=("torch", "echo"))):
            payer = Payer(nova=spent.name)
            amount = Amount(1, 0) if spent.unit == "usd" else Amount(0, 1)
            assert not self.fits(amount, payer)


def test_the_budgets_are_right_whatever_happens(valkey_server: StoreAddress) -> None:
    class Machine(BudgetMachine):
        address = valkey_server

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
