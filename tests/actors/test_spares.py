"""Standby Novas take over a dead one's name, and are replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "50",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    home = tmp_path_factory.mktemp("spares") / "home"
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--spares", "2")
    with running_fleet(home, *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def spares(fleet: FleetProcess) -> set[int]:
    """Pids of actors that are ready and nobody's."""
    named = {nova["pid"] for nova in fleet.status()["novas"]}
    found = set()
    for process in psutil.Process(fleet.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "NovaActor" in " ".join(process.cmdline()) and process.pid not in named:
                found.add(process.pid)
    return found


def test_a_spare_becomes_the_dead_nova_and_another_stands_by(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    wait_until(lambda: len(spares(fleet)) == 2, 30, what="two spares")
    standing_by = spares(fleet)
    noted = tmp_path / "runs"
    task_id = fleet.submit(argv=["sh", "-c", f"echo $$ >> {noted}; sleep 1"], nova="echo")
    wait_until(lambda: noted.exists() and len(noted.read_text().split()) == 1, 10)
    killed_s = time.monotonic()
    os.kill(fleet.nova("echo")["pid"], signal.SIGKILL)
    wait_until(lambda: len(noted.read_text().split()) == 2, 10)
    print(f"runs again after {time.monotonic() - killed_s:.3f} s")
    assert fleet.nova("echo")["pid"] in standing_by
    assert fleet.ended(task_id)["attempts"] == 2
    wait_until(lambda: len(spares(fleet)) == 2, 30, what="the pool to be full again")
    full = {"wanted": 2, "ready": 2}
    wait_until(lambda: fleet.status()["fleet"]["spares"] == full, 10, what="the status to say so")


def test_a_dead_spare_is_replaced(fleet: FleetProcess) -> None:
    wait_until(lambda: len(spares(fleet)) == 2, 30)
    before = spares(fleet)
    os.kill(min(before), signal.SIGKILL)
    wait_until(lambda: len(spares(fleet)) == 2 and spares(fleet) != before, 30)
    assert any(line["event"] == "spare_died" for line in fleet.said())


def test_a_spare_that_hangs_holds_no_nova_up(fleet: FleetProcess) -> None:
    wait_until(lambda: len(spares(fleet)) == 2, 30)
    hung = next(
        line["pid"]
        for line in fleet.said()
        if line["event"] == "spare_ready" and line["pid"] in spares(fleet)
    )
    os.kill(hung, signal.SIGSTOP)
    before = fleet.nova("echo")["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: fleet.nova("echo")["pid"] not in (None, before), 10, what="a new echo")
    assert fleet.nova("echo")["pid"] != hung
    wait_until(lambda: not psutil.pid_exists(hung), 10, what="the end of the hung one")
    wait_until(lambda: len(spares(fleet)) == 2, 30, what="the pool to be full again")


def test_a_nova_that_joins_takes_a_spare_and_one_that_leaves_gives_its_slot_back(
    fleet: FleetProcess,
) -> None:
    wait_until(lambda: len(spares(fleet)) == 2, 30)
    standing_by = spares(fleet)
    for _ in range(3):
        fleet.json("add", "helix")
        wait_until(lambda: fleet.nova("helix")["listening"], 20)
        assert fleet.ended(fleet.submit(argv=["true"], nova="helix"))["status"] == "completed"
        fleet.json("remove", "helix")
        wait_until(lambda: len(spares(fleet)) == 2, 30)
    assert not standing_by & spares(fleet)


def test_a_rolling_restart_runs_new_code_whatever_was_imported_ahead(fleet: FleetProcess) -> None:
    wait_until(lambda: len(spares(fleet)) == 2, 30)
    standing_by = spares(fleet)
    server = psutil.Process(fleet.nova("echo")["pid"]).ppid()
    assert fleet.json("restart", "--rolling")["restarted"] == ["torch", "echo"]
    wait_until(lambda: len(spares(fleet)) == 2, 30, what="new spares")
    now = {nova["pid"] for nova in fleet.status()["novas"]} | spares(fleet)
    assert not standing_by & now
    assert server not in {psutil.Process(pid).ppid() for pid in now}
