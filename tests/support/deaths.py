"""A fleet whose processes are killed one after the other, and what must be true of the rest.

The store is the fleet's own, as a user has it. Tasks are commands that leave behind whatever a
command can leave behind. Only processes that belong to the fleet are killed, each by its pid and
start time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
from fleet_process import FleetProcess, Process, clean_environment
from waiting import wait_until

from novawf.client import Fleet
from novawf.errors import NovawfError

NOVAS = ("torch", "echo", "helix")
FLAGS = ("--novas", ",".join(NOVAS), "--pace", "0", "--momentum", "off", "--no-console",
         "--spares", "1")  # fmt: skip
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "100000",
    "NOVAWF_SUPERVISION__BACKOFF_BASE_S": "0.05",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.2",
    "NOVAWF_SUPERVISION__POISON_AFTER": "100000",
    "NOVAWF_TASKS__LEASE_S": "4",
    "NOVAWF_TASKS__RETRIES": "1000",
    "NOVAWF_TASKS__BACKOFF_BASE_S": "0.05",
    "NOVAWF_TASKS__BACKOFF_CAP_S": "0.2",
    "NOVAWF_EXECUTORS__GRACE_S": "0.1",
}
"""Limits that exist to stop a fleet which fails this often are raised; the rest is as shipped."""

GONE_WITHIN_S = 10.0
IN_HAND = 6
"""Tasks that are kept pending or running while the deaths go on."""

TREE = """\
echo "$NOVAWF_TASK_ID $NOVAWF_ATTEMPT" >> "$1/runs"
( ( exec "$1/leaf/sleep" 300 ) & )
setsid "$1/leaf/sleep" 300 &
nohup "$1/leaf/sleep" 300 > /dev/null 2>&1 &
env -i "$1/leaf/sleep" 300 &
sh -c "trap '' INT TERM HUP; $1/leaf/sleep 300; :" &
( trap '' INT TERM; setsid env -i sh -c "( $1/leaf/sleep 300 & )" )
"$1/leaf/sleep" 0.3
"""
"""A command that forks, double-forks, leaves its session, its environment, and does not obey."""

KINDS = {
    "command": 9, "keeper": 5, "nova": 5, "actor": 3, "spare": 1, "keeper server": 1,
    "fork server": 1,
}  # fmt: skip
"""What is killed how often, beside the supervisor, which is killed by number."""


def _of_run(run_id: str) -> Iterator[psutil.Process]:
    """Ray's workers of a run, whoever their parent is by now."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            stamped = process.environ().get("NOVAWF_RUN_ID") == run_id
            if stamped and process.cmdline()[0].startswith("ray::"):
                yield process


class Doomed:
    """The fleet, its victims, and bystanders that look like its processes."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.dice = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.ids: list[str] = []
        for name in ("leaf", "bystander"):
            (directory / name).mkdir()
            shutil.copy(str(shutil.which("sleep")), directory / name / "sleep")
        (directory / "tree.sh").write_text(TREE)
        self.environment = clean_environment(**SETTINGS)
        self.fleet = self._start()
        self.bystanders = [self._bystander(**more) for more in ({}, {"start_new_session": True})]

    def _start(self) -> FleetProcess:
        return FleetProcess(self.directory / "home", *FLAGS, env=self.environment).listening()

    def _bystander(self, **options: bool) -> subprocess.Popen[bytes]:
        """Not ours to kill, however much it looks like it."""
        stamps = {"NOVAWF_KEEPER": "torch:1", "NOVAWF_NOVA": "torch", "NOVAWF_TASK_ID": "T-1-1"}
        argv = [str(self.directory / "bystander" / "sleep"), "3000"]
        return subprocess.Popen(argv, env={**os.environ, **stamps}, **options)

    # -- the deaths --------------------------------------------------------------------------------

    def rage(self, kills: int, supervisors: int) -> None:
        """So many deaths, of them so many of the supervisor, at random times."""
        every = kills // (supervisors + 1)
        while sum(self.kills.values()) < kills:
            self._keep_busy()
            number = sum(self.kills.values()) + 1
            if number % every == 0 and self.kills["supervisor"] < supervisors:
                self._kill_supervisor()
                continue
            kind = self.dice.choices(list(KINDS), list(KINDS.values()))[0]
            with contextlib.suppress(NovawfError, psutil.Error):
                if victims := self._victims(kind):
                    self.dice.choice(victims).send_signal(signal.SIGKILL)
                    self.kills[kind] += 1
            time.sleep(self.dice.uniform(0.0, 0.3))  # at any moment of whatever goes on

    def _kill_supervisor(self) -> None:
        tree = self.fleet.tree()
        run_id = json.loads((self.directory / "home" / "fleet.json").read_text())["run_id"]
        self.fleet.process.kill()
        self.fleet.process.wait()
        self.kills["supervisor"] += 1
        rest = [process for process in tree if "valkey" not in process.what]
        self._wait_for_end(rest)
        wait_until(
            lambda: not list(_of_run(run_id)), GONE_WITHIN_S, what="the end of its Ray's workers"
        )
        self.fleet = self._start()

    def _wait_for_end(self, processes: list[Process]) -> None:
        wait_until(
            lambda: not any(p.lives() for p in processes) and not self.leaves(),
            GONE_WITHIN_S,
            what="the end of all that a dead supervisor had started",
        )

    def _victims(self, kind: str) -> list[psutil.Process]:
        if kind == "command":
            return self.leaves()
        if kind in ("nova", "actor"):
            status = self.fleet.status()
            rows = status["novas"] if kind == "nova" else status["actors"]
            return [psutil.Process(row["pid"]) for row in rows if row["pid"]]
        below = psutil.Process(self.fleet.pid).children()
        if kind == "spare":
            known = {line["pid"] for line in self.fleet.said() if line["event"] == "spare_ready"}
            return [p for p in psutil.Process(self.fleet.pid).children(True) if p.pid in known]
        servers = [p for p in below if "keeper_server" in " ".join(p.cmdline())]
        if kind == "keeper server":
            return servers
        if kind == "fork server":
            return [p for p in below if "actors.forkserver" in p.cmdline()]
        return [keeper for server in servers for keeper in server.children()]

    def leaves(self) -> list[psutil.Process]:
        """What commands started, wherever it went."""
        return list(self._running(str(self.directory / "leaf")))

    def _running(self, path: str) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(word.startswith(path) for word in process.cmdline()):
                    yield process

    # -- the work ----------------------------------------------------------------------------------

    def _keep_busy(self) -> None:
        async def submit(fleet: Fleet) -> None:
            counts = (await fleet.status())["tasks"]
            argv = ["sh", str(self.directory / "tree.sh"), str(self.directory)]
            for _ in range(IN_HAND - counts["pending"] - counts["in_progress"]):
                self.ids.append(await fleet.submit({"title": "tree", "argv": argv}))

        with contextlib.suppress(NovawfError):
            self.fleet.ask(submit)

    def wait_for_all(self, timeout_s: float) -> None:
        """Until every task has ended."""

        def all_ended() -> bool:
            counts = self.fleet.status()["tasks"]
            return not counts["pending"] + counts["in_progress"]

        wait_until(all_ended, timeout_s, what="the end of every task")

    # -- the end -----------------------------------------------------------------------------------

    def zombies(self) -> list[str]:
        """Dead processes of the fleet that nobody has buried."""
        found = []
        for process in self.fleet.tree():
            with contextlib.suppress(psutil.Error):
                if process.process.status() == psutil.STATUS_ZOMBIE:
                    found.append(process.what)
        return found

    def left_behind(self) -> list[str]:
        """What of the fleet still runs, by what it was started with."""
        return [
            " ".join(process.cmdline())
            for name in ("leaf", "home")
            for process in self._running(str(self.directory / name))
        ]

    def close(self) -> None:
        """End everything, the bystanders too."""
        self.fleet.end()
        for bystander in self.bystanders:
            bystander.kill()
            bystander.wait()


async def ends_of(fleet: Fleet, ids: list[str]) -> Counter[str]:
    """How often each task ended, by its history; every one must have completed."""
    found: Counter[str] = Counter()
    for views in [ids[at : at + 50] for at in range(0, len(ids), 50)]:
        for task in await asyncio.gather(*(fleet.task(task_id) for task_id in views)):
            assert task["status"] == "completed", task
            found[task["task_id"]] = sum(e["event"] == "completed" for e in task["history"])
    return found
