"""Ray's own processes die: the session is ended and another is started, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fleet_process import FleetProcess, Process, clean_environment, running_fleet
from waiting import wait_until

SETTINGS = {"NOVAWF_TASKS__BACKOFF_BASE_S": "0.1"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """As shipped, with dashboard: its agents are what would stay."""
    home = tmp_path_factory.mktemp("session") / "home"
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(home, *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def runs(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("core", ["raylet", "gcs_server"])
def test_a_dead_core_costs_a_session_and_no_task(
    fleet: FleetProcess, tmp_path: Path, core: str
) -> None:
    ground = {"valkey", "keeper_server", "sentinel"}
    noted = tmp_path / "runs"
    task_id = fleet.submit(argv=["sh", "-c", f"echo $$ >> {noted}; sleep 2"])
    waits = fleet.submit(argv=["true"], after=[task_id])
    wait_until(lambda: len(runs(noted)) == 1, 10)
    before = [p for p in fleet.tree() if not any(word in p.what for word in ground)]
    store = (fleet.home / "store" / "valkey.pid").read_text()
    process = next(p for p in psutil.Process(fleet.pid).children() if p.name() == core)
    count = len(fleet.said())
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: len(runs(noted)) == 2, 60, what="the second run")
    assert not Path(f"/proc/{runs(noted)[0]}").exists(), "the first run goes on"
    for done in (task_id, waits):
        assert fleet.ended(done)["status"] == "completed"
    # A Nova that outlived the first by a moment may have taken it too, and died before it began.
    assert fleet.task(task_id)["attempts"] in (2, 3)
    wait_until(lambda: not any(survives(p) for p in before), 10, what="the old session's end")
    assert (fleet.home / "store" / "valkey.pid").read_text() == store, "the store went on"

    def events() -> list[str]:
        return [line["event"] for line in fleet.said()[count:]]

    wait_until(lambda: "fleet_started" in events(), 20, what="the new session")
    assert events().count("ray_died") == 1
    assert events().count("fleet_started") == 1
    assert all(nova["restarts"] == 0 for nova in fleet.status()["novas"]), "no fault of theirs"


def survives(process: Process) -> bool:
    return process.lives() and "supervisor.py" not in process.what
