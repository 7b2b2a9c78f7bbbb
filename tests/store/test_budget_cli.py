"""`novawf budget` on a real store, what `status` and Prometheus show, and the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from budget_world import TORCH, cost
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from novawf import fleet_metrics, fleet_view
from novawf.audit.chain import lines_of, verify
from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.clock import SystemClock
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings, Caps
from novawf.limits.budget_scopes import Payer
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync

SETTINGS = BudgetSettings(
    usd_per_day=2, unconfirmed_after_s=0, nova=Caps(usd_total=5), novas={"echo": Caps()}
)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Novawf = Callable[..., Answer]


@pytest.fixture
async def budgets(redis: Any) -> Budgets:
    """A fleet that has said its caps, and two calls: one settled, one whose caller died."""
    document = {"budget": SETTINGS.model_dump(mode="json")}
    await redis.hset(keys.FLEET, "document", json.dumps(document))
    clock = SystemClock()
    budgets = Budgets(redis, clock, SETTINGS)
    await budgets.reserve("r1", cost(1.0, 10), TORCH)
    await budgets.settle("r1", 500_000, 7)
    await budgets.reserve("dead", cost(0.25, 100), Payer(nova="echo"))
    return budgets


@pytest.fixture
def novawf(
    valkey_server: StoreAddress,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Novawf:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    async def run(*argv: str) -> Answer:
        import asyncio

        def call() -> Answer:
            capsysbinary.readouterr()
            code = run_app(make_app(), PROG, ["--store", valkey_server.url(), *argv])
            captured = capsysbinary.readouterr()
            return Answer(code, captured.out.decode(), captured.err.decode())

        return await asyncio.to_thread(call)

    return run


async def test_the_table_shows_windows_and_unconfirmed_calls(budgets: Budgets, novawf: Any) -> None:
    """For people, and as JSON."""
    shown = await novawf("budget")
    assert shown.code == 0, shown
    lines = shown.out.splitlines()
    fleet = next(line for line in lines if line.startswith("fleet") and "day" in line)
    for word in ("0.50 USD", "0.25 USD", "2.00 USD", "1.25 USD"):
        assert word in fleet
    assert any("1 call that nobody confirmed" in line for line in lines)
    assert any(line.startswith("dead ") and "echo" in line for line in lines)
    document = json.loads((await novawf("budget", "--json")).out)
    assert document["unconfirmed_total"] == document["open"] == 1
    assert document["unconfirmed"][0]["id"] == "dead"
    row = next(r for r in document["budgets"] if (r["scope"], r["window"]) == ("fleet", "day"))
    assert (row["spent"], row["reserved"], row["cap"], row["left"]) == (0.5, 0.25, 2.0, 1.25)
    assert row["frees_at"].endswith("Z")


async def test_without_budgets_and_calls_it_says_so(redis: Any, novawf: Any) -> None:
    """An empty store."""
    shown = await novawf("budget")
    assert (shown.code, shown.out.count("\n")) == (0, 1)
    assert "no budget is set" in shown.out
    assert (await novawf("budget", "repair")).out == "the budgets in the store are whole\n"


async def test_an_unconfirmed_call_is_settled_by_hand(
    redis: Any, budgets: Budgets, novawf: Any
) -> None:
    """With evidence; wrong figures and ids are one line each."""
    shown = await novawf("budget", "settle", "dead", "--usd", "0.1", "--evidence", "the bill")
    assert shown.out == "dead counts for 0.10 USD and 100 tokens (reserved were 0.25 USD)\n"
    again = await novawf(
        "budget", "settle", "dead", "--usd", "0", "--tokens", "3", "--evidence", "log", "--json"
    )
    assert json.loads(again.out) == {
        "id": "dead", "state": "corrected", "usd": 0.0, "tokens": 3, "was_usd": 0.25,
    }  # fmt: skip
    assert await redis.hget(keys.BUDGET_SPENT, "fleet|total|usd") == "500000"
    for argv, word, code in (
        (("nobody", "--usd", "1", "--evidence", "x"), "no reservation nobody", 2),
        (("dead", "--usd", "-1", "--evidence", "x"), "usd: -1.0 is not between", 2),
        (("dead", "--usd", "nan", "--evidence", "x"), "usd: nan", 2),
        (("dead", "--usd", "1", "--evidence", " "), "evidence: say how", 2),
        (("dead", "--usd", "1"), "--evidence", 2),
    ):
        refused = await novawf("budget", "settle", *argv)
        assert (refused.code, refused.out) == (code, "")
        assert word in refused.err


async def test_broken_budgets_are_shown_refused_and_mended(
    redis: Any, budgets: Budgets, novawf: Any
) -> None:
    """The error names the command, the command shows, --yes mends."""
    await redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", b"\xff")
    refused = await novawf("budget")
    assert refused.code == 1 and "`novawf budget repair`" in refused.err
    assert len(refused.err.splitlines()) == 1
    shown = await novawf("budget", "repair")
    assert shown.code == 1
    assert "it becomes 0.75 USD" in shown.out and "budget repair --yes" in shown.out
    assert (await novawf("budget")).code == 1
    mended = await novawf("budget", "repair", "--yes", "--json")
    document = json.loads(mended.out)
    assert (mended.code, document["left"]) == (0, 0)
    assert document["faults"][0]["mended"] is True
    assert (await novawf("budget")).code == 0
    assert await redis.hget(keys.BUDGET_SPENT, "fleet|total|usd") == "750000"


async def test_status_tells_of_the_budget_and_survives_a_broken_one(
    redis: Any, budgets: Budgets
) -> None:
    """It shows; it does not judge."""
    clock = SystemClock()
    said = (await fleet_view.status(redis, clock))["budget"]
    assert (said["open"], said["unconfirmed"], said["exhausted"]) == (1, 1, [])
    assert [row["spent"] for row in said["fleet"] if row["cap"] is not None] == [0.75]
    await budgets.reserve("rest", cost(1.25), Payer())
    (spent,) = (await fleet_view.status(redis, clock))["budget"]["exhausted"]
    assert spent["why"].startswith("the budget of the fleet for this day is spent: 2.00 of 2.00")
    await redis.hset(keys.BUDGET_META, "version", "9")
    said = (await fleet_view.status(redis, clock))["budget"]
    assert "newer novawf" in said["fault"] and said["fleet"] == []


async def test_prometheus_sees_spending_and_limits(
    redis: Any, budgets: Budgets, valkey_server: StoreAddress
) -> None:
    """And no series of what cannot be read."""

    class Collector:
        def collect(self) -> Any:
            return fleet_metrics.families(fleet_metrics.read(client, SystemClock()))

    def scrape() -> str:
        registry = CollectorRegistry()
        registry.register(Collector())  # type: ignore[arg-type]
        return generate_latest(registry).decode()

    client = connect_sync(valkey_server)
    try:
        text = scrape()
        day = 'name="",scope="fleet",window="day"'
        assert f"novawf_budget_spent_usd{{{day}}} 0.75" in text
        assert f"novawf_budget_limit_usd{{{day}}} 2.0" in text
        assert 'novawf_budget_spent_tokens{name="torch",scope="nova",window="total"} 7.0' in text
        assert 'novawf_budget_limit_usd{name="torch",scope="nova",window="total"} 5.0' in text
        await redis.delete(keys.BUDGET_SPENT)
        await redis.set(keys.BUDGET_SPENT, "x")
        assert "novawf_budget_spent_usd{" not in scrape()
        assert "novawf_api_concurrency_in_use" in scrape()
    finally:
        client.close()


async def test_a_call_that_may_be_under_way_is_not_settled_by_hand(redis: Any, novawf: Any) -> None:
    """Nobody said when calls of this fleet count as dead: a quarter of an hour."""
    await Budgets(redis, SystemClock(), BudgetSettings()).reserve("young", cost(1), Payer())
    refused = await novawf("budget", "settle", "young", "--usd", "0", "--evidence", "x")
    assert refused.code == 1 and "under way" in refused.err


async def test_settling_and_mending_are_recorded(
    redis: Any, budgets: Budgets, novawf: Any, tmp_path: Path
) -> None:
    """Each with what changed and why; what was refused leaves no record."""
    await novawf("budget", "settle", "dead", "--usd", "0.1", "--evidence", "the bill")
    await novawf("budget", "settle", "nobody", "--usd", "1", "--evidence", "x")
    await redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", b"\xff")
    await novawf("budget", "repair")
    await novawf("budget", "repair", "--yes")
    trail = tmp_path / "home" / "audit"
    records = [line.record for line in lines_of(trail) if line.record]
    settled, mended = [one for one in records if one["action"].startswith("budget.")]
    assert (settled["action"], settled["target"]) == ("budget.settle", "dead")
    assert (settled["why"], settled["after"]["usd"]) == ("the bill", 0.1)
    assert mended["action"] == "budget.repair"
    assert mended["target"] == f"{keys.BUDGET_SPENT} fleet|total|usd"
    assert mended["before"] and mended["after"]
    assert verify(trail).ok
