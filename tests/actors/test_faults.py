"""Whatever dies, the rest goes on, and no task is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from fleet_process import LEASE_S, FleetProcess, seconds_until
from waiting import wait_until


def starts(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def slow_command(file: Path, seconds: float) -> list[str]:
    """A command that notes its pid when it starts."""
    return ["sh", "-c", f"echo $$ >> {file}; sleep {seconds}"]


def restarts(fleet: FleetProcess) -> dict[str, int]:
    return {nova["id"]: nova["restarts"] for nova in fleet.status()["novas"]}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_killed_nova_is_back_and_its_pinned_task_runs_again(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    before = restarts(fleet)
    noted = tmp_path / "starts"
    task_id = fleet.submit(argv=slow_command(noted, 3), nova="echo")
    wait_until(lambda: len(starts(noted)) == 1, 10)
    os.kill(fleet.nova("echo")["pid"], signal.SIGKILL)
    wait_until(lambda: len(starts(noted)) == 2, 20, what="the second run")
    assert gone(int(starts(noted)[0])), "the first run's process outlived its Nova"
    task = fleet.ended(task_id)
    assert (task["status"], task["attempts"], task["assignee"]) == ("completed", 2, "echo")
    assert "released" in [event["event"] for event in task["history"]]
    after = restarts(fleet)
    assert after == before | {"echo": before["echo"] + 1}, "only echo was started again"
    state = fleet.nova("echo")
    assert state["alive"]
    assert state["listening"]


def test_another_idle_nova_takes_the_task_of_a_killed_one(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    noted = tmp_path / "starts"
    task_id = fleet.submit(argv=slow_command(noted, 2))
    wait_until(lambda: len(starts(noted)) == 1, 10)
    owner = fleet.task(task_id)["owner"]
    os.kill(fleet.nova(owner)["pid"], signal.SIGKILL)
    wait_until(lambda: len(starts(noted)) == 2, 10)
    task = fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert task["assignee"] != owner


def test_a_nova_goes_on_from_its_kept_state(fleet: FleetProcess) -> None:
    before = fleet.nova("torch")
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(
        lambda: (
            fleet.nova("torch")["pid"] not in (None, before["pid"])
            and fleet.nova("torch")["listening"]
        ),
        20,
    )
    assert fleet.nova("torch")["cycles"] >= before["cycles"]


@pytest.mark.parametrize("actor", ["safety", "limiter", "metrics", "streams"])
def test_a_killed_shared_actor_is_back_and_work_goes_on(fleet: FleetProcess, actor: str) -> None:
    def record() -> dict[str, Any]:
        return next(a for a in fleet.status()["actors"] if a["name"] == actor)

    before = record()
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: record()["restarts"] > before["restarts"] and record()["alive"], 20)
    assert fleet.ended(fleet.submit(callable="fleet_jobs:call_api"))["status"] == "completed"


def test_a_killed_store_comes_back_and_no_nova_dies(fleet: FleetProcess) -> None:
    before = restarts(fleet)
    done = fleet.ended(fleet.submit(callable="fleet_jobs:add", args=[1, 1]))
    os.kill(int((fleet.home / "store" / "valkey.pid").read_text()), signal.SIGKILL)

    def works() -> bool:
        again = fleet.novawf("--json", "task", done["task_id"], check=False)
        return again.returncode == 0

    wait_until(works, 15, what="the store's return, with what was in it")
    assert fleet.ended(fleet.submit(callable="fleet_jobs:add", args=[1, 1]))["results"] == 2
    assert restarts(fleet) == before


def test_a_killed_keeper_server_is_replaced(fleet: FleetProcess) -> None:
    keeper = next(p for p in fleet.tree() if "keeper_server" in p.what)
    os.kill(keeper.process.pid, signal.SIGKILL)
    wait_until(lambda: any(line.get("what") == "keeper server" for line in fleet.said()), 10)
    assert fleet.ended(fleet.submit(argv=["echo", "kept"]))["stdout_tail"] == "kept\n"


def test_a_stopped_owner_loses_its_task_and_cannot_end_it_later(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    noted = tmp_path / "starts"
    task_id = fleet.submit(argv=slow_command(noted, 1.5 * LEASE_S))
    wait_until(lambda: len(starts(noted)) == 1, 10)
    owner = fleet.task(task_id)["owner"]
    pid = fleet.nova(owner)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: len(starts(noted)) == 2, 4 * LEASE_S, what="the task's second owner")
        assert gone(int(starts(noted)[0])), "two runs of one task at once"
    finally:
        os.kill(pid, signal.SIGCONT)
    task = fleet.ended(task_id)
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert task["assignee"] != owner
    ends = [event for event in task["history"] if event["event"] == "completed"]
    assert len(ends) == 1
    wait_until(lambda: fleet.nova(owner)["listening"], 20)
    assert fleet.ended(fleet.submit(argv=["true"], nova=owner))["status"] == "completed"


def test_an_emergency_stop_ends_what_runs_and_nothing_starts_until_it_is_cleared(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    noted = tmp_path / "starts"
    running = fleet.submit(argv=slow_command(noted, 30))
    wait_until(lambda: len(starts(noted)) == 1, 10)
    stop = fleet.json("stop-all", "--reason", "drill")
    try:
        assert abs(stop["acknowledged_at"] - time.time()) < 60
        wait_until(lambda: gone(int(starts(noted)[0])), 10, what="the end of what ran")
        waiting = fleet.submit(argv=["touch", str(tmp_path / "never")])
        assert fleet.status()["fleet"]["stop"]["reason"] == "drill"
        wait_until(lambda: all(n["state"] == "safety_pause" for n in fleet.status()["novas"]), 20)
        assert fleet.task(waiting)["status"] == "pending"
        assert not (tmp_path / "never").exists()
    finally:
        fleet.novawf("clear-stop")
    assert fleet.ended(waiting)["status"] == "completed"
    wait_until(lambda: len(starts(noted)) == 2, 10, what="the ended task's second run")
    fleet.novawf("cancel", running)
    assert fleet.ended(running)["outcome"] == "cancelled"


def test_a_paused_nova_starts_nothing_until_it_is_resumed(fleet: FleetProcess) -> None:
    fleet.novawf("pause", "helix")
    pinned = fleet.submit(argv=["true"], nova="helix")
    assert fleet.ended(fleet.submit(argv=["true"]))["status"] == "completed"
    assert fleet.task(pinned)["status"] == "pending"
    fleet.novawf("resume", "helix")
    assert fleet.ended(pinned)["status"] == "completed"


def test_an_idle_nova_starts_new_work_without_waiting_for_a_poll(fleet: FleetProcess) -> None:
    wait_until(lambda: all(n["task"] is None for n in fleet.status()["novas"]), 20)
    task = fleet.ended(fleet.submit(callable="fleet_jobs:who"))
    events = {event["event"]: event["at"] for event in task["history"]}
    from datetime import datetime

    created, claimed = (datetime.fromisoformat(events[e]) for e in ("created", "claimed"))
    # Loose on purpose: a poll would take seconds; how fast it is measures tests/bench latency.
    assert (claimed - created).total_seconds() < 2.0


def test_recovery_is_seconds_not_minutes(fleet: FleetProcess, tmp_path: Path) -> None:
    noted = tmp_path / "starts"
    fleet.submit(argv=slow_command(noted, 20), nova="torch")
    wait_until(lambda: len(starts(noted)) == 1, 10)
    os.kill(fleet.nova("torch")["pid"], signal.SIGKILL)
    # Loose on purpose: tests/bench recovery measures how fast it is.
    assert seconds_until(lambda: len(starts(noted)) == 2, 30) < 15


def test_a_task_that_ends_its_novas_is_quarantined_and_they_live_on(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    noted = tmp_path / "starts"
    task_id = fleet.submit(argv=slow_command(noted, 60), nova="helix", retries=10)
    for count in (1, 2, 3):
        wait_until(lambda count=count: len(starts(noted)) == count, 30)
        os.kill(fleet.nova("helix")["pid"], signal.SIGKILL)
    task = fleet.ended(task_id)
    assert (task["status"], task["outcome"], task["attempts"]) == ("blocked", "quarantined", 3)
    why = fleet.json("why", task_id)
    assert why["reason"] == "quarantined"
    assert f"novawf retry {task_id}" in why["released_by"]
    assert fleet.ended(fleet.submit(argv=["true"], nova="helix"))["status"] == "completed"
    assert len(starts(noted)) == 3


def test_novas_are_forked_and_outlive_the_fork_server(fleet: FleetProcess, tmp_path: Path) -> None:
    """Says too when a new Ray takes no forked workers any more: that costs speed, silently."""
    server = psutil.Process(fleet.nova("echo")["pid"]).parent()
    assert server is not None
    assert "actors.forkserver" in server.cmdline(), "Novas start in Ray's own way"
    before = restarts(fleet)
    said = len(fleet.said())
    task_id = fleet.submit(argv=["sleep", "2"], nova="torch")
    server.kill()
    wait_until(
        lambda: any(
            line["event"] == "mended" and line["what"] == "fork server"
            for line in fleet.said()[said:]
        ),
        10,
        what="a new fork server",
    )
    pid = fleet.nova("echo")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: fleet.nova("echo")["pid"] not in (None, pid), 20, what="a new echo")
    wait_until(lambda: fleet.nova("echo")["listening"], 20)
    assert fleet.ended(task_id)["attempts"] == 1
    assert restarts(fleet) == before | {"echo": before["echo"] + 1}
    again = psutil.Process(fleet.nova("echo")["pid"]).parent()
    assert again is not None
    assert "actors.forkserver" in again.cmdline()
