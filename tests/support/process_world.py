"""Real processes for tests: keeper servers, trees of known shapes, and who is still there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from waiting import wait_until

from novawf.processes.identity import alive, process_start_time, process_stat
from novawf.processes.keeper import KeeperServerProcess, SpawnRequest, start_keeper_server
from novawf.processes.tree import children

DEADLINE_S = 10.0
PATH = {"PATH": os.environ["PATH"]}

SLEEPER = 'echo $$ > "$PIDS/pid.new" && mv "$PIDS/pid.new" "$PIDS/pid"; exec sleep 600'
SHAPES = {
    "plain": f"sh -c '{SLEEPER}' &",
    "daemonised": f"( ( setsid sh -c '{SLEEPER}' < /dev/null > /dev/null 2>&1 & ) & )",
    "double_fork_holding_output": f"( ( sh -c '{SLEEPER}' & ) & )",
    "setsid": f"setsid sh -c '{SLEEPER}' &",
    "nohup": f"nohup sh -c '{SLEEPER}' > /dev/null 2>&1 &",
    "empty_environment": f"env -i PIDS=\"$PIDS\" /bin/sh -c '{SLEEPER}' &",
    "ignores_signals": f"sh -c 'trap \"\" TERM INT HUP; {SLEEPER}' &",
}
"""Shell text that starts a process which writes its pid to $PIDS/pid, shape by shape."""

UNTIL_THERE = 'while [ ! -e "$PIDS/pid" ]; do sleep 0.01; done'


class Process(NamedTuple):
    """A pid that still means the same process."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has `pid` now."""
        start_time = process_start_time(pid)
        assert start_time is not None, f"no process {pid}"
        return cls(pid, start_time)

    def runs(self) -> bool:
        """Whether it still does."""
        return alive(self.pid, self.start_time)


def sleeper_of(pids: Path, within_s: float = DEADLINE_S) -> Process:
    """The process that a shape started, once it is there."""
    wait_until((pids / "pid").exists, within_s, "the shape's process")
    return Process.of(int((pids / "pid").read_text()))


def shape_request(tmp_path: Path, shape: str, main: str, **more) -> SpawnRequest:
    """A command that starts `shape`, then goes on as `main`."""
    script = f"{SHAPES[shape]}\n{UNTIL_THERE}\n{main}"
    pids = tmp_path / "pids"
    pids.mkdir(exist_ok=True)
    return SpawnRequest(
        argv=("sh", "-c", script),
        env={**PATH, "PIDS": str(pids)},
        **{"stamp": "torch:1", "log_path": str(tmp_path / "log"), "grace_s": 0.1, **more},
    )


def zombies_of(pid: int) -> list[int]:
    """Children of `pid` that are dead and unreaped."""
    return [child for child in children(pid) if (s := process_stat(child)) and s[0] == "Z"]


def waiting_at(server: KeeperServerProcess) -> list[int]:
    """Its keepers that were forked ahead and have no order yet."""
    return [child for child in children(server.pid) if _name(child) in _WAITING]


def keepers_at(server: KeeperServerProcess) -> list[int]:
    """Its keepers that have one, and whatever else is below it."""
    return [child for child in children(server.pid) if _name(child) not in _WAITING]


_WAITING = ("novawf-waiting", "novawf-keepers")  # the second is what a fork is called at first


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def keeper_server(run_dir: Path) -> Iterator[KeeperServerProcess]:
    """A keeper server for one test; gone afterwards, whatever the test did to it."""
    server = start_keeper_server(run_dir)
    try:
        yield server
    finally:
        assert server.stop(DEADLINE_S)


@contextlib.contextmanager
def bystander() -> Iterator[Process]:
    """A process that is nobody's business."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        yield Process.of(process.pid)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def script(path: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A helper process that imports as we do, with pipes to it; killed at the end."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, path, *args], stdin=pipe, stdout=pipe, text=True, env=env
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            stream.close()
