"""What lives and is of no use is ended and replaced; what is only slow goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_TASKS__LEASE_S": "60",
    "NOVAWF_TASKS__IDLE_WAIT_S": "1",
    "NOVAWF_SUPERVISION__SILENT_S": "3",
    "NOVAWF_SUPERVISION__STUCK__TASK_EXECUTION": "3",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "50",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    home = tmp_path_factory.mktemp("live") / "home"
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(home, *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def hung(fleet: FleetProcess, child: str) -> list[dict[str, Any]]:
    """What the supervisor said of a child that it ended as hung."""
    return [s for s in fleet.said() if s["event"] == "child_hung" and s["child"] == child]


def test_a_stopped_nova_is_replaced_long_before_its_lease_is_over(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    noted = tmp_path / "starts"
    task_id = fleet.submit(argv=["sh", "-c", f"echo $$ >> {noted}; sleep 2"], nova="torch")
    wait_until(noted.exists, 10)
    pid = fleet.nova("torch")["pid"]
    os.kill(pid, signal.SIGSTOP)
    task = fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert not Path(f"/proc/{pid}").exists()
    nova = fleet.nova("torch")
    assert nova["cause"].startswith("it hung (no heartbeat for ")
    assert nova["restarts"] == 1
    assert len(hung(fleet, "torch")) == 1


@pytest.mark.parametrize("actor", ["safety", "limiter", "metrics", "streams"])
def test_a_stopped_shared_actor_is_replaced(fleet: FleetProcess, actor: str) -> None:
    def record() -> dict[str, Any]:
        return next(a for a in fleet.status()["actors"] if a["name"] == actor)

    before = record()
    os.kill(before["pid"], signal.SIGSTOP)
    wait_until(lambda: record()["alive"] and record()["pid"] not in (None, before["pid"]), 30)
    assert "it hung (it has not answered for 3 s)" in record()["cause"]
    assert fleet.ended(fleet.submit(argv=["true"]))["status"] == "completed"


def test_work_that_moves_is_left_alone_and_work_that_does_not_is_ended(
    fleet: FleetProcess,
) -> None:
    before = len(hung(fleet, "echo"))
    slow = fleet.submit(argv=["sh", "-c", "for i in 1 2 3 4; do sleep 1.8; echo $i; done"],
                        nova="echo")  # fmt: skip
    assert fleet.ended(slow)["attempts"] == 1
    assert len(hung(fleet, "echo")) == before, "it was ended though its work moved"
    silent = fleet.submit(argv=["sleep", "60"], nova="echo", retries=0)
    task = fleet.ended(silent)
    assert (task["status"], task["attempts"]) == ("blocked", 1)
    wait_until(lambda: len(hung(fleet, "echo")) == before + 1, 10)
    assert "stuck: task_execution" in hung(fleet, "echo")[-1]["cause"]


def test_the_evidence_is_in_the_status(fleet: FleetProcess) -> None:
    fleet.ended(fleet.submit(argv=["echo", "moved"], nova="echo"))
    wait_until(lambda: fleet.nova("echo")["evidence"]["record"], 10)
    evidence = fleet.nova("echo")["evidence"]
    assert evidence["heartbeat"] >= evidence["cycle"]
    assert evidence["output"] is None, "nothing is in hand"
