"""A fleet ends in order, within its limits, and everybody concerned is told of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from service_manager import service_manager
from valkey_process import running_valkey
from waiting import wait_until

from novawf.client import Fleet
from novawf.store.embedded import find_binary

FLAGS = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off")
QUIET = {"NOVAWF_RAY__DASHBOARD": "false"}
IGNORANT = "trap '' INT TERM; touch {}; while :; do sleep 0.1; done"
"""A command that only SIGKILL ends."""


def in_hand(fleet: FleetProcess, task_id: str) -> bool:
    return bool(fleet.task(task_id)["status"] == "in_progress")


def waited_for(fleet: FleetProcess) -> list[str] | None:
    """Whom the supervisor said last that it waits for."""
    lines = [line for line in fleet.said() if line["event"] == "waiting_for"]
    return lines[-1]["children"] if lines else None


def test_a_drain_waits_within_its_limit_and_tells_everybody(tmp_path: Path) -> None:
    """Work in hand finishes; Novas end before what they share; command and service manager hear
    whom the end waits for; and no command can speak to the service manager."""
    done = tmp_path / "done"
    with service_manager(tmp_path / "notify") as manager:
        env = clean_environment(**QUIET, NOTIFY_SOCKET=manager.name, WATCHDOG_USEC="2000000")
        with running_fleet(tmp_path / "home", *FLAGS, "--drain-limit", "60", env=env) as fleet:
            assert manager.heard("READY=1")
            wait_until(lambda: manager.said.count("WATCHDOG=1") >= 3, 10)
            shown = fleet.ended(fleet.submit(argv=["env"]))["stdout_tail"]
            assert "NOVAWF_TASK_ID" in shown
            assert "NOTIFY_SOCKET" not in shown
            assert "WATCHDOG_USEC" not in shown
            task = fleet.submit(argv=["sh", "-c", f"sleep 3; touch {done}"], nova="torch")
            wait_until(lambda: in_hand(fleet, task), 10)
            tree = fleet.tree()
            assert not manager.heard("STOPPING=1")
            answer = fleet.json("down")
            assert fleet.process.wait(5) == 0
            assert done.exists()
            assert "torch" in answer["waited_for"]
            wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
            said = fleet.said()
    waited = [line for line in said if line["event"] == "waiting_for"]
    assert waited[-1]["children"] == ["torch"]
    assert waited[-1]["limit_s"] == 60
    stopped = [line["child"] for line in said if line["event"] == "child_stopped"]
    assert stopped == ["echo", "torch", "streams", "metrics", "limiter", "safety"]
    assert [line["what"] for line in said if line["event"] == "stopping"] == ["ray", "store"]
    assert manager.heard("STATUS=stopping: waiting for torch")
    ending = manager.said[manager.said.index("STOPPING=1") :]
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in ending)


def test_a_limit_can_be_changed_and_who_does_not_end_is_killed(tmp_path: Path) -> None:
    """`down --drain-limit 0` during a long drain hands back, and is no second signal; a Nova that
    is stopped, and a command that ignores signals, do not hold the end up."""
    started = tmp_path / "started"
    directory = tmp_path / "store"
    directory.mkdir()
    with running_valkey(find_binary(), directory) as address:
        url = f"unix://{address.path}"
        env = clean_environment(
            **QUIET, NOVAWF_STORE_URL=url, NOVAWF_SUPERVISION__DRAIN_S="600",
            NOVAWF_SUPERVISION__SHUTDOWN_S="1", NOVAWF_EXECUTORS__GRACE_S="0.2",
        )  # fmt: skip
        with running_fleet(tmp_path / "home", *FLAGS, env=env) as fleet:
            task = fleet.submit(argv=["sh", "-c", IGNORANT.format(started)], nova="torch")
            wait_until(started.exists, 10)
            tree = fleet.tree()
            stopped = fleet.nova("echo")["pid"]
            os.kill(stopped, signal.SIGSTOP)
            fleet.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not psutil.pid_exists(stopped), 4.5, what="the end of a deaf Nova")
            wait_until(lambda: waited_for(fleet) == ["torch"], 5)
            assert fleet.status()["fleet"]["state"] == "draining"
            late = fleet.novawf("add", "helix", check=False)
            assert "ending" in late.stderr
            began = time.monotonic()
            fleet.json("down", "--drain-limit", "0")
            assert fleet.process.wait(5) == 0
            assert time.monotonic() - began < 20
            wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
        assert fleet_task(url, task) == ("pending", "handed back")


def test_what_a_nova_that_had_to_be_killed_held_is_free_at_once(tmp_path: Path) -> None:
    """Not only when a fleet starts again, and its end by order is no mark against its task."""
    started = tmp_path / "started"
    directory = tmp_path / "store"
    directory.mkdir()
    with running_valkey(find_binary(), directory) as address:
        url = f"unix://{address.path}"
        env = clean_environment(**QUIET, NOVAWF_STORE_URL=url, NOVAWF_SUPERVISION__SHUTDOWN_S="1")
        with running_fleet(tmp_path / "home", *FLAGS, env=env) as fleet:
            task = fleet.submit(argv=["sh", "-c", f"touch {started}; sleep 600"], nova="torch")
            wait_until(started.exists, 10)
            tree = fleet.tree()
            os.kill(fleet.nova("torch")["pid"], signal.SIGSTOP)
            fleet.novawf("down", "--drain-limit", "0")
            assert fleet.process.wait(20) == 0
            wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
        assert fleet_task(url, task) == ("pending", "ended by order")


def fleet_task(url: str, task_id: str) -> tuple[str, str]:
    """Status of a task and how its last attempt ended, without a fleet."""
    import asyncio

    async def ask() -> tuple[str, str]:
        async with Fleet.connect(store=url) as fleet:
            task = await fleet.task(task_id)
            return task["status"], task["history"][-1]["detail"]

    return asyncio.run(ask())


def test_a_closed_terminal_drains_like_any_other_order(tmp_path: Path) -> None:
    """A shell passes SIGHUP on to the whole group, and Ray must outlive the work in hand."""
    done = tmp_path / "done"
    with running_fleet(tmp_path / "home", *FLAGS, env=clean_environment(**QUIET)) as fleet:
        task = fleet.submit(argv=["sh", "-c", f"sleep 2; touch {done}"])
        wait_until(lambda: in_hand(fleet, task), 10)
        tree = fleet.tree()
        core = [p for p in tree if "raylet" in p.what or "gcs_server" in p.what]
        os.killpg(fleet.pid, signal.SIGHUP)
        wait_until(lambda: waited_for(fleet), 5)
        assert core
        assert all(p.lives() for p in core)
        assert fleet.process.wait(20) == 0
        assert done.exists()
        wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
        assert not any(line["event"] == "child_died" for line in fleet.said())


def may_unshare() -> bool:
    with contextlib.suppress(OSError):
        return not subprocess.run(
            ["unshare", "--fork", "--pid", "--mount-proc", "true"], check=False, capture_output=True
        ).returncode
    return False


@pytest.mark.skipif(not may_unshare(), reason="no PID namespace may be made here")
def test_as_process_1_it_reaps_strangers_and_ends_everything(tmp_path: Path) -> None:
    """As in a container: SIGTERM works although process 1 has no defaults, orphans do not stay."""
    under = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    with running_fleet(
        tmp_path / "home", *FLAGS, env=clean_environment(**QUIET), under=under
    ) as fleet:
        (first,) = psutil.Process(fleet.pid).children()
        tree = fleet.tree()
        inside = ["nsenter", "--target", str(first.pid), "--pid", "--mount"]
        subprocess.run([*inside, "sh", "-c", "sleep 1 &"], check=True, timeout=10)
        orphan = next(c for c in first.children() if c.name() == "sleep")
        wait_until(lambda: not orphan.is_running(), 5, what="the end and the burial of an orphan")
        assert fleet.ended(fleet.submit(argv=["sh", "-c", "exit 3"], retries=0))["exit_code"] == 3
        os.kill(first.pid, signal.SIGTERM)
        assert fleet.process.wait(30) == 0
        wait_until(lambda: not any(p.lives() for p in tree), 2, what="the end of every process")
