"""A whole fleet as a user starts it: `python supervisor.py`, a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
from waiting import wait_until

from novawf.client import Fleet
from novawf.errors import NovawfError

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 4.0
"""Lease of the fleets that tests share: short, so that silence is noticed within a test."""
STARTED_WITHIN_S = 60.0
"""Generous: this is about whether, not how fast; `tests/bench coldstart` measures how fast."""


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment of a stranger: nothing of ours in it."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOVAWF_", "RAY_"))}
    return {**inherited, **changes}


def free_port() -> int:
    """A free port below the ephemeral ones: of those Ray takes some while it starts."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Process:
    """A process that is recognised by its start time: pids are used again."""

    def __init__(self, process: psutil.Process) -> None:
        self.process = process
        self.started = process.create_time()
        self.what = ""
        with contextlib.suppress(psutil.Error):
            self.what = " ".join(process.cmdline())[:120] or process.name()

    def lives(self) -> bool:
        try:
            now = psutil.Process(self.process.pid)
            return now.create_time() == self.started and now.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class FleetProcess:
    """One supervisor and what can be asked of it from outside."""

    def __init__(
        self,
        home: Path,
        *flags: str,
        env: dict[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> None:
        """`under` is a command that runs the supervisor as its own."""
        self.home = home
        self.metrics_port = free_port()
        self.env = env or clean_environment(NOVAWF_RAY__DASHBOARD="false")
        self.log = home.parent / f"{home.name}.out"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    *under, sys.executable, str(ROOT / "supervisor.py"), "--home", str(home),
                    "--metrics-port", str(self.metrics_port), *flags,
                ],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self.env, cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> list[dict[str, Any]]:
        """The JSON lines it printed."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def novawf(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line against this fleet."""
        program = str(Path(sys.executable).with_name("novawf"))
        done = subprocess.run(
            [program, "--home", str(self.home), *argv],
            capture_output=True, text=True, env=self.env, timeout=60, check=False,
        )  # fmt: skip
        if check:
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done

    def json(self, *argv: str) -> Any:
        """What a command prints with --json."""
        return json.loads(self.novawf("--json", *argv).stdout)

    def ask(self, question: Callable[[Fleet], Awaitable[T]]) -> T:
        """Ask by way of the Python client: a command costs half a second, this costs 10 ms."""

        async def asked() -> T:
            async with Fleet.connect(home=self.home) as fleet:
                return await question(fleet)

        return asyncio.run(asked())

    def status(self) -> dict[str, Any]:
        return self.ask(lambda fleet: fleet.status())

    def listening(self) -> FleetProcess:
        """Wait until every Nova listens."""
        wait_until(self._all_listen, STARTED_WITHIN_S, what=f"a listening fleet ({self.log})")
        return self

    def _all_listen(self) -> bool:
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
        if not any(line["event"] == "fleet_started" for line in self.said()):
            return False
        try:
            return all(nova["listening"] for nova in self.status()["novas"])
        except NovawfError:
            return False

    def nova(self, name: str) -> dict[str, Any]:
        return next(nova for nova in self.status()["novas"] if nova["id"] == name)

    def submit(self, **fields: Any) -> str:
        """Submit one task."""
        return self.ask(lambda fleet: fleet.submit({"title": "test", **fields}))

    def task(self, task_id: str) -> dict[str, Any]:
        return self.ask(lambda fleet: fleet.task(task_id))

    def ended(self, task_id: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Wait until a task has ended; answers it."""
        found: dict[str, Any] = {}

        def has_ended() -> bool:
            found.update(self.task(task_id))
            return found["status"] in ("completed", "blocked")

        wait_until(has_ended, timeout_s, what=f"the end of {task_id}: {found}")
        return found

    def tree(self) -> list[Process]:
        """Every process below the supervisor, and the supervisor."""
        supervisor = psutil.Process(self.pid)
        found = []
        for process in [supervisor, *supervisor.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(Process(process))
        return found

    def stop(self, number: int = signal.SIGINT, timeout_s: float = 30.0) -> int:
        """Signal it and wait; answers the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Whatever state it is in: end it and all that it started."""
        if self.process.poll() is None:
            left = self.tree()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            wait_until(lambda: not any(p.lives() for p in left if "valkey" not in p.what), 15)


@contextlib.contextmanager
def running_fleet(
    home: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    under: tuple[str, ...] = (),
) -> Iterator[FleetProcess]:
    """A fleet that listens, and is gone at the end of the block."""
    fleet = FleetProcess(home, *flags, env=env, under=under)
    try:
        yield fleet.listening()
    finally:
        fleet.end()


def seconds_until(condition: Callable[[], Any], timeout_s: float) -> float:
    """How long it took until `condition` held."""
    began = time.monotonic()
    wait_until(condition, timeout_s, what="the measured condition")
    return time.monotonic() - began
