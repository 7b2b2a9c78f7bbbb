"""An emergency stop of a real fleet: nothing begins after it is acknowledged, whoever is silent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import stop_jobs
from fleet_process import FleetProcess, clean_environment, running_fleet
from stop_races import Races, race
from waiting import until, wait_until

from novawf.client import Fleet
from novawf.workflow.acknowledging import LIMIT_S

SUPPORT = Path(stop_jobs.__file__).resolve().parent
NOVAS = ["torch", "echo", "helix"]
FLAGS = ("--novas", ",".join(NOVAS), "--pace", "0", "--momentum", "off", "--no-console")
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "100",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
}
SIGKILLED_TREE = (
    'trap "" INT TERM; (setsid bash -c \'trap "" INT TERM; while :; do sleep 1; done\' &); '
    'echo $$ >> "$0"; while :; do sleep 1; done'
)
"""A command that ignores polite signals, and so does what it started and let go of."""


@pytest.fixture(scope="module")
def stoppable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """A fleet of its own: the stops of these races must hold up nobody else's tests."""
    home = tmp_path_factory.mktemp("stop") / "home"
    with running_fleet(home, *FLAGS, env=clean_environment(**SETTINGS)) as running:
        yield running


@pytest.fixture
def log(tmp_path: Path, stoppable: FleetProcess) -> Iterator[Path]:
    """Where work notes its start; the stop of a test that failed is cleared."""
    path = tmp_path / "starts"
    path.touch()
    yield path
    stoppable.ask(lambda fleet: fleet.clear_stop("test"))


def raced(stoppable: FleetProcess, log: Path, count: int, **how: Any) -> Races:
    """So many races; every tenth one is a stop that drains."""
    rng, races = random.Random(count), Races()

    async def run() -> None:
        async with Fleet.connect(home=stoppable.home) as fleet:
            for number in range(count):
                drain = how.get("drain", number % 10 == 9)
                await race(fleet, races, log, NOVAS, rng, **{**how, "drain": drain})

    asyncio.run(run())
    return races


def mostly_spoke(races: Races) -> bool:
    """For a Nova that a busy machine kept from speaking time does it: that is the exception."""
    return sum(map(bool, races.silent)) <= len(races.silent) / 20


def test_no_task_begins_after_a_stop_is_acknowledged(stoppable: FleetProcess, log: Path) -> None:
    """A hundred and fifty stops against callables, commands and pinned tasks on their way."""
    races = raced(stoppable, log, 150)
    assert races.violations(log) == []
    assert len(log.read_text().splitlines()) > 150  # there was something to race against
    assert mostly_spoke(races)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_task_begins_after_any_of_a_thousand_stops(stoppable: FleetProcess, log: Path) -> None:
    """The same a thousand times."""
    races = raced(stoppable, log, 1000)
    assert races.violations(log) == []
    assert mostly_spoke(races)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_nova_that_cannot_answer_begins_nothing_either(
    stoppable: FleetProcess, log: Path, number: signal.Signals
) -> None:
    """A Nova is stopped or killed right before; a stopped one goes on while the stop stands."""
    wait_until(lambda: all(nova["listening"] for nova in stoppable.status()["novas"]), 60)
    pids: list[int] = []
    rng = random.Random(number)

    def strike() -> None:
        alive = [nova["pid"] for nova in stoppable_novas if psutil.pid_exists(nova["pid"])]
        pids[:] = [rng.choice(alive)]
        os.kill(pids[0], number)

    def goes_on() -> None:
        if number == signal.SIGSTOP:
            os.kill(pids[0], signal.SIGCONT)

    races = Races()

    async def run() -> None:
        nonlocal stoppable_novas
        async with Fleet.connect(home=stoppable.home) as fleet:
            for turn in range(6):

                async def all_listen() -> list[dict[str, Any]] | None:
                    novas = (await fleet.status())["novas"]
                    ready = all(nova["listening"] and nova["alive"] for nova in novas)
                    return novas if ready else None

                stoppable_novas = await until(all_listen, 60, what="a listening fleet")  # type: ignore[assignment]
                await race(
                    fleet, races, log, NOVAS, rng,
                    drain=turn % 3 == 2, before=strike, after=goes_on, stay_s=0.4,
                )  # fmt: skip

    stoppable_novas: list[dict[str, Any]] = []
    asyncio.run(run())
    assert races.violations(log) == []
    assert max(races.latency_s) < LIMIT_S + 2  # late, yet acknowledged: nobody blocks a stop
    if number == signal.SIGSTOP:
        assert all(len(silent) == 1 for silent in races.silent)


def test_what_runs_is_gone_within_ten_seconds_and_may_run_again(
    stoppable: FleetProcess, log: Path, tmp_path: Path
) -> None:
    """A tree that ignores SIGINT and SIGTERM is ended, and its task keeps its attempt."""
    pids = tmp_path / "pids"
    stubborn = {"argv": ["bash", "-c", SIGKILLED_TREE, str(pids)], "retries": 1}
    task = stoppable.submit(**stubborn, nova="torch")
    wait_until(lambda: pids.exists() and pids.read_text().strip(), 30)
    leader = psutil.Process(int(pids.read_text()))
    keeper = leader.parent()
    assert keeper is not None
    wait_until(lambda: len(keeper.children(recursive=True)) >= 3, 10)
    tree = keeper.children(recursive=True)
    # Old enough to be ended with grace: what has just begun is killed at once.
    wait_until(lambda: time.time() - leader.create_time() > 1)
    began_s = time.monotonic()
    stoppable.ask(lambda fleet: fleet.stop_all("drill"))
    wait_until(lambda: not any(process.is_running() for process in tree), 15, what="its end")
    assert time.monotonic() - began_s <= 10
    wait_until(lambda: stoppable.task(task)["status"] == "pending", 10)
    assert stoppable.task(task)["attempts"] <= 1
    stoppable.ask(lambda fleet: fleet.cancel(task))


def test_what_a_nova_runs_that_cannot_hear_is_ended_too(stoppable: FleetProcess, log: Path) -> None:
    """It was stopped by a signal; its command is gone when `stop-all` returns."""
    wait_until(lambda: all(nova["listening"] for nova in stoppable.status()["novas"]), 60)
    task = stoppable.submit(argv=["bash", "-c", 'echo $$ > "$0"; sleep 300', str(log)], nova="echo")
    wait_until(lambda: log.read_text().strip(), 30)
    command, nova = psutil.Process(int(log.read_text())), stoppable.nova("echo")["pid"]
    os.kill(nova, signal.SIGSTOP)
    try:
        said = stoppable.json("stop-all", "--reason", "drill")
        assert said["silent"] == ["echo"]
        assert not command.is_running()
    finally:
        os.kill(nova, signal.SIGCONT)
    wait_until(lambda: stoppable.task(task)["status"] == "pending", 30)
    stoppable.ask(lambda fleet: fleet.cancel(task))
    log.write_text("")


def test_a_stop_that_drains_lets_work_finish_and_a_plain_one_ends_the_rest(
    stoppable: FleetProcess, log: Path, tmp_path: Path
) -> None:
    """Nothing new begins under either; a stop that drains takes nothing back from a plain one."""
    short = stoppable.submit(argv=stop_jobs.command(log, tmp_path / "go"), nova="torch")
    long = stoppable.submit(argv=stop_jobs.command(log, tmp_path / "never"), nova="echo")
    wait_until(lambda: len(log.read_text().splitlines()) == 2, 30, what="both run")
    said = stoppable.json("stop-all", "--reason", "drill", "--drain")
    assert said["drains"] is True
    late = stoppable.submit(callable="stop_jobs:note", args=[str(log)])
    stop = stoppable.status()["fleet"]["stop"]
    assert (stop["drains"], stop["running"]) == (True, 2)
    assert "lets it finish" in stoppable.novawf("why", long).stdout
    (tmp_path / "go").touch()
    assert stoppable.ended(short)["status"] == "completed"
    assert stoppable.task(long)["status"] == "in_progress"
    done = stoppable.novawf(
        "stop-all", "--reason", "now", "--drain", "--wait", "--timeout", "0.5", check=False
    )
    assert done.returncode == 1  # `long` still runs
    said = stoppable.json("stop-all", "--reason", "now", "--wait")
    assert (said["drains"], said["idle"]) == (False, True)
    assert stoppable.task(long)["status"] == "pending"
    assert stoppable.json("stop-all", "--reason", "again", "--drain")["drains"] is False
    assert stoppable.task(late)["status"] == "pending"
    stoppable.ask(lambda fleet: fleet.cancel(long))
    stoppable.novawf("clear-stop")
    assert stoppable.ended(late)["status"] == "completed"


@pytest.mark.timeout(300)
def test_a_stop_outlives_everything_but_its_clearing(tmp_path: Path) -> None:
    """Each process of the fleet is killed in turn, and the supervisor last."""
    home, log = tmp_path / "home", tmp_path / "starts"
    log.touch()
    env = clean_environment(**SETTINGS)
    flags = ("--novas", "torch", "--pace", "0", "--momentum", "off", "--no-console")
    first = FleetProcess(home, *flags, env=env).listening()
    second: FleetProcess | None = None
    try:
        first.novawf("stop-all", "--reason", "drill", "--drain")
        task = first.submit(callable="stop_jobs:note", args=[str(log)])

        def restarts(name: str) -> int:
            status = first.status()
            rows = {row["id"]: row for row in status["novas"]}
            rows |= {row["name"]: row for row in status["actors"]}
            return int(rows[name]["restarts"]) if rows[name]["alive"] else -1

        def pid_of(name: str) -> int:
            status = first.status()
            rows = {row["id"]: row for row in status["novas"]}
            rows |= {row["name"]: row for row in status["actors"]}
            return int(rows[name]["pid"])

        for name in ("torch", "limiter", "safety"):
            before = restarts(name)
            os.kill(pid_of(name), signal.SIGKILL)
            wait_until(lambda name=name, before=before: restarts(name) > before, 60, what=name)
        store = next(p for p in first.tree() if "valkey-server" in p.what)
        store.process.kill()

        def store_is_back() -> bool:
            with contextlib.suppress(Exception):
                return first.status()["fleet"]["stop"] is not None
            return False

        wait_until(store_is_back, 60, what="the store's return")
        first.process.kill()
        first.process.wait()
        second = FleetProcess(home, *flags, env=env).listening()
        stop = second.status()["fleet"]["stop"]
        assert (stop["reason"], stop["drains"]) == ("drill", True)
        assert second.task(task)["status"] == "pending"
        assert log.read_text() == ""
        second.novawf("clear-stop")
        assert second.ended(task, 60)["status"] == "completed"
    finally:
        for fleet in (first, second):
            if fleet is not None:
                fleet.end()
