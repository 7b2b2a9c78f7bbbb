"""Novas join, leave and begin anew while the fleet runs, and no task notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "2",
    "NOVAWF_SUPERVISION__BACKOFF_BASE_S": "0.1",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    home = tmp_path_factory.mktemp("elastic") / "home"
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(home, *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def names(fleet: FleetProcess) -> set[str]:
    return {nova["id"] for nova in fleet.status()["novas"]}


def listens(fleet: FleetProcess, name: str) -> None:
    wait_until(lambda: name in names(fleet) and fleet.nova(name)["listening"], 20, what=name)


def holding(fleet: FleetProcess, nova: str, release: Path) -> str:
    """A command on that Nova that goes on until a file is there."""
    wait = f"while [ ! -e {release} ]; do sleep 0.02; done"
    task_id = fleet.submit(argv=["sh", "-c", wait], nova=nova)
    wait_until(lambda: fleet.task(task_id)["status"] == "in_progress", 10)
    return task_id


def test_a_nova_joins_and_works_and_leaves_after_its_task(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    assert fleet.json("add", "vaeris", "torch") == {"added": ["vaeris"]}
    listens(fleet, "vaeris")
    assert fleet.json("add", "vaeris") == {"added": []}
    signalled = fleet.json("wake", "vaeris", "note this", "--priority", "critical")
    assert signalled["stream"] == "nova.coordination.vaeris"
    release = tmp_path / "go"
    task_id = holding(fleet, "vaeris", release)
    pid = fleet.nova("vaeris")["pid"]
    before = len(fleet.said())

    def leaving() -> bool:
        return any(line["event"] == "order" for line in fleet.said()[before:])

    program = str(Path(sys.executable).with_name("novawf"))
    remove = subprocess.Popen(
        [program, "--home", str(fleet.home), "remove", "vaeris", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=fleet.env,
    )  # fmt: skip
    wait_until(leaving, 10)
    assert fleet.task(task_id)["status"] == "in_progress", "its task is not cut short"
    release.touch()
    out, _ = remove.communicate(timeout=20)
    assert json.loads(out) == {"removed": ["vaeris"]}
    assert fleet.task(task_id)["status"] == "completed"
    assert fleet.task(task_id)["attempts"] == 1
    assert "vaeris" not in names(fleet)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 5)


def test_a_limit_cuts_the_task_short_and_hands_it_back(fleet: FleetProcess, tmp_path: Path) -> None:
    fleet.json("add", "synergy")
    listens(fleet, "synergy")
    fleet.ask(lambda f: f.pause("torch"))
    fleet.ask(lambda f: f.pause("echo"))
    task_id = fleet.submit(argv=["sleep", "30"])
    wait_until(lambda: fleet.task(task_id)["owner"] == "synergy", 10)
    fleet.json("remove", "synergy", "--limit", "0.2")
    task = fleet.task(task_id)
    assert (task["status"], task["owner"]) == ("pending", None)
    fleet.ask(lambda f: f.cancel(task_id))
    fleet.ask(lambda f: f.resume("torch"))
    fleet.ask(lambda f: f.resume("echo"))


def test_a_fleet_is_scaled_by_number_and_by_name(fleet: FleetProcess) -> None:
    done = fleet.json("scale", "4")
    assert done["novas"] == ["torch", "echo", "helix", "vaeris"]
    listens(fleet, "vaeris")
    assert fleet.json("scale", "4")["added"] == []
    done = fleet.json("scale", "torch", "echo")
    assert (done["added"], sorted(done["removed"])) == ([], ["helix", "vaeris"])
    wait_until(lambda: names(fleet) == {"torch", "echo"}, 10)


def test_a_rolling_restart_renews_all_and_cuts_no_task_short(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    before = {nova["id"]: nova for nova in fleet.status()["novas"]}
    release = tmp_path / "go"
    task_id = holding(fleet, "torch", release)
    release_later = fleet.submit(argv=["sh", "-c", f"sleep 1; touch {release}"], nova="echo")
    assert fleet.json("restart", "--rolling") == {"restarted": ["torch", "echo"], "failed": []}
    for nova in fleet.status()["novas"]:
        assert nova["pid"] != before[nova["id"]]["pid"]
        assert nova["restarts"] == before[nova["id"]]["restarts"], "that is no failure"
    for done in (task_id, release_later):
        task = fleet.ended(done)
        assert (task["status"], task["attempts"]) == ("completed", 1)


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["remove", "nobody"], 1, "there is no nobody in this fleet; there are torch, echo"),
        (["remove", "torch", "echo"], 1, "at least one Nova"),
        (["add", "To rch"], 2, "cannot name a Nova"),
        (["add", "limiter"], 1, "is a part of the fleet"),
        (["scale", "0"], 2, "give 1 to"),
        (["restart", "nobody"], 1, "there is no nobody"),
        (["restart"], 2, "--rolling"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused_in_one_line(
    fleet: FleetProcess, argv: list[str], code: int, said: str
) -> None:
    before = {nova["id"]: nova["pid"] for nova in fleet.status()["novas"]}
    done = fleet.novawf(*argv, check=False)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {nova["id"]: nova["pid"] for nova in fleet.status()["novas"]} == before


def test_a_quarantined_nova_is_let_out_by_resume(fleet: FleetProcess) -> None:
    def after_a_kill(pid: int) -> bool:
        nova = fleet.nova("echo")
        return nova["pid"] not in (pid, None) or nova["state"] == "quarantined"

    for _ in range(3):
        pid = fleet.nova("echo")["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: after_a_kill(pid), 20)
    assert fleet.nova("echo")["state"] == "quarantined"
    why = fleet.json("why", "echo")
    assert "novawf resume echo" in why["released_by"]
    assert fleet.json("resume", "echo")["changed"] is True
    listens(fleet, "echo")
    assert fleet.ended(fleet.submit(argv=["true"], nova="echo"))["status"] == "completed"
