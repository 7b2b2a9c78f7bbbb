"""Safety of a running fleet fails closed, says why, and lets work go on once it is healed."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

from novawf.client import Fleet
from novawf.safety.assembly import MECHANISMS
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.store import keys

SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SAFETY__REFRESH_S": "0.1",
    "NOVAWF_SAFETY__VALID_S": "1",
    "NOVAWF_SAFETY__FROSTY__BASE_S": "2",
    "NOVAWF_SAFETY__FROSTY__CAP_S": "2",
    "NOVAWF_SAFETY__HOOK_HEALTH__COOLDOWN_S": "2",
    "NOVAWF_SAFETY__API_GUARDIAN__EMERGENCY_S": "2",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "50",
    "NOVAWF_BUDGET__USD_TOTAL": "1",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(Path(__file__).resolve().parents[1] / "support"),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """Its verdicts are renewed twenty times as often as usual, and its cooldowns are short."""
    home = tmp_path_factory.mktemp("closed") / "home"
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(home, *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def change(fleet: FleetProcess, what: Callable[[Any], Awaitable[Any]]) -> Any:
    """Do something to the store itself."""
    return fleet.ask(lambda client: what(client.redis))


def why(fleet: FleetProcess) -> str:
    return str(fleet.ask(lambda client: client.why())["sentence"])


def held(fleet: FleetProcess, words: str) -> str:
    """Wait until nothing may start for this reason; answers a task that waits for it."""
    wait_until(lambda: words in why(fleet), 15, what=f"{words!r} in why; it is {why(fleet)!r}")
    task_id = fleet.submit(argv=["true"])
    sentence = str(fleet.ask(lambda client: client.why(task_id))["sentence"])
    assert words in sentence
    assert fleet.task(task_id)["status"] == "pending"
    return task_id


def goes_on(fleet: FleetProcess, *task_ids: str) -> None:
    for task_id in task_ids:
        assert fleet.ended(task_id)["status"] == "completed"


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_mechanism_whose_memory_is_garbage(fleet: FleetProcess, name: str) -> None:
    change(fleet, lambda redis: redis.hset(keys.SAFETY_STATE, name, "garbage"))
    waits = held(fleet, f"what {name} remembers cannot be read")
    assert f"novawf safety reset {name}" in why(fleet)
    assert fleet.novawf("safety", "check", check=False).returncode == 1
    fleet.novawf("safety", "reset", name)
    goes_on(fleet, waits)
    fleet.novawf("safety", "check")


@pytest.mark.parametrize("key", [keys.SAFETY_STATE, keys.SAFETY_EVENTS])
def test_a_key_of_another_type(fleet: FleetProcess, key: str) -> None:
    async def replace(redis: Any) -> None:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            pipe.set(key, "garbage")
            await pipe.execute()

    change(fleet, replace)
    waits = held(fleet, "novawf safety reset all")
    fleet.novawf("safety", "reset", "all")
    goes_on(fleet, waits)


def test_the_safety_actor_is_stopped_and_goes_on(fleet: FleetProcess) -> None:
    pid = next(actor["pid"] for actor in fleet.status()["actors"] if actor["name"] == "safety")
    os.kill(pid, signal.SIGSTOP)
    try:
        waits = held(fleet, "safety verdict expired")
    finally:
        os.kill(pid, signal.SIGCONT)
    goes_on(fleet, waits)


def test_the_safety_actor_is_killed(fleet: FleetProcess) -> None:
    """Another one is there within a second, with what this one remembered."""
    tell(fleet, SafetyEvent(Kind.API_HAMMERING, "test", "no permit"))
    waits = held(fleet, "api_guardian")
    before = next(a["pid"] for a in fleet.status()["actors"] if a["name"] == "safety")
    os.kill(before, signal.SIGKILL)
    assert fleet.task(waits)["status"] == "pending"
    goes_on(fleet, waits)
    after = next(a["pid"] for a in fleet.status()["actors"] if a["name"] == "safety")
    assert after != before


def tell(fleet: FleetProcess, event: SafetyEvent) -> None:
    async def reported(client: Fleet) -> None:
        await report(client.redis, client.clock, event)

    fleet.ask(reported)


def test_a_call_without_a_permit_halts_everything_for_a_while(fleet: FleetProcess) -> None:
    tell(fleet, SafetyEvent(Kind.API_HAMMERING, "gateway", "no permit"))
    waits = held(fleet, "a call without a permit (gateway)")
    status = fleet.status()["safety"]
    assert status["action"] == "halt"
    goes_on(fleet, waits)  # the emergency, and the cooldown, end by themselves


def test_in_a_cooldown_critical_work_goes_on(fleet: FleetProcess) -> None:
    tell(fleet, SafetyEvent(Kind.SYSTEM_OVERLOAD, "test", "drill"))
    waits = held(fleet, "cools down")
    critical = fleet.submit(argv=["true"], priority="critical")
    assert fleet.ended(critical)["status"] == "completed"
    goes_on(fleet, waits)


def test_a_hook_that_was_shut_off_holds_its_nova_alone(fleet: FleetProcess) -> None:
    tell(fleet, SafetyEvent(Kind.HOOK_FAILURE, "stop.sh", "it loops", "torch"))
    wait_until(lambda: "torch" in fleet.status()["safety"]["holds"], 15)
    aimed = fleet.submit(argv=["true"], nova="torch")
    said = fleet.ask(lambda client: client.why(aimed))
    assert (said["reason"], "stop.sh" in said["sentence"]) == ("nova_held", True)
    goes_on(fleet, fleet.submit(argv=["true"], nova="echo"))
    goes_on(fleet, aimed)


def test_a_budget_that_is_spent_lets_nothing_start_until_evidence_frees_some(
    fleet: FleetProcess,
) -> None:
    def pay(most_usd: float) -> dict[str, Any]:
        task = {"callable": "fleet_jobs:call_paid_api", "args": [most_usd], "retries": 0}
        return fleet.ended(fleet.submit(**task))

    assert pay(0.6)["status"] == "completed"
    refused = pay(0.5)
    assert refused["status"] == "blocked"
    assert "does not reach for a call of 0.50 USD" in refused["history"][-1]["detail"]
    spent = pay(0.4)
    waits = held(fleet, "the budget of the fleet is spent")
    assert fleet.ask(lambda client: client.why())["reason"] == "budget"
    evidence = ("--usd", "0.1", "--evidence", "the invoice")
    fleet.novawf("budget", "settle", spent["results"], *evidence)
    goes_on(fleet, waits)


def test_budgets_that_are_garbage(fleet: FleetProcess) -> None:
    change(fleet, lambda redis: redis.hset(keys.BUDGET_SPENT, "fleet|total|usd", "garbage"))
    waits = held(fleet, "novawf budget repair")
    fleet.novawf("budget", "repair", "--yes")
    goes_on(fleet, waits)


def test_a_gate_that_is_garbage_comes_back_stopped(fleet: FleetProcess, tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    async def replace(redis: Any) -> None:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.delete(keys.GATE)
            pipe.set(keys.GATE, "garbage")
            await pipe.execute()

    change(fleet, replace)
    task_id = fleet.submit(argv=["touch", str(ran)])
    said = fleet.novawf("why", check=False)
    assert "novawf safety reset gate" in said.stdout + said.stderr
    fleet.novawf("safety", "reset", "gate")
    wait_until(lambda: "was replaced" in why(fleet), 15)
    assert not ran.exists()
    fleet.novawf("clear-stop")
    goes_on(fleet, task_id)
