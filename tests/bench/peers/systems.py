"""How each of the compared systems is started, fed and stopped: two workers on an equal store.

Every store is the embedded one with its log synced every second, on a unix socket. Every system
gets `client.py` in a process of its own for what submits. Not here: what is made of the times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from novawf.store.embedded import EmbeddedStore
from tests.bench import processes
from tests.bench.fleet_under_test import ROOT, running

APPS = Path(__file__).parent / "apps"
NOVAS = ("torch", "echo")
CLIENT_S = 180.0
STOP_S = 15.0

WORKERS: dict[str, tuple[str, ...]] = {
    "taskiq": (
        *("taskiq", "worker", "taskiq_app:broker", "--workers", "2", "--log-level", "ERROR"),
    ),
    "celery": (
        *("celery", "--app", "celery_app", "worker", "--concurrency", "2", "--loglevel", "ERROR"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ),
    "huey": (
        *("huey.bin.huey_consumer", "huey_app.queue", "--workers", "2"),
        *("--worker-type", "process", "--no-periodic", "--quiet"),
    ),
}  # fmt: skip
"""What runs a peer's workers: arguments of `python -m`."""


class Peer(NamedTuple):
    """One of the compared: the app, the environment it runs in, what its processes are told."""

    app: str
    kind: str
    env: dict[str, str]


PEERS: dict[str, Peer] = {
    "taskiq": Peer("taskiq", "plain", {}),
    "celery": Peer("celery", "plain", {}),
    "huey": Peer("huey", "plain", {}),
    "taskiq_tuned": Peer("taskiq", "tuned", {"PEERS_ASYNC": "1"}),
    "huey_tuned": Peer("huey", "tuned", {}),
}


@dataclass(slots=True)
class System:
    """One system that runs: `queue` tasks, then let it `go`, then submit one at a time."""

    app: str
    python: Path
    marks: Path
    env: dict[str, str]
    store_pid: int
    workers: asyncio.subprocess.Process | None = None
    fleet_pid: int = 0
    errors: Path | None = None

    async def client(self, mode: str, number: int = 0) -> dict[str, Any]:
        """What the system's client answers. Raises RuntimeError."""
        process = await asyncio.create_subprocess_exec(
            *(str(self.python), str(APPS / "client.py"), f"{self.app}_app", mode, str(number)),
            cwd=self.marks,
            env=self.env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(CLIENT_S):
                output, _ = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"the client of {self.app} ended with {process.returncode}")
        answer: dict[str, Any] = json.loads(output.decode().strip().split("\n")[-1])
        return answer

    async def go(self) -> None:
        """Let it take what was queued."""
        if self.fleet_pid:
            await self.client("go")
            return
        self.errors = self.marks.with_name("workers.log")
        with self.errors.open("wb") as log:
            self.workers = await asyncio.create_subprocess_exec(
                *(str(self.python), "-m", *WORKERS[self.app]),
                cwd=APPS,
                env=self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C at the terminal is ours to handle
            )

    def cpu_s(self) -> float:
        """CPU time so far of all its processes and its store."""
        root = self.fleet_pid or (self.workers.pid if self.workers else 0)
        pids = {root, self.store_pid, *processes.below(root)} if root else {self.store_pid}
        return processes.cpu_s(pids)

    def last_words(self) -> str:
        """The end of what a peer's workers printed."""
        return self.errors.read_text(errors="replace")[-1500:] if self.errors else ""


@contextlib.asynccontextmanager
async def novawf(directory: Path, stamp: str) -> AsyncIterator[System]:
    """A fleet of two Novas at pace 0, with warm Python workers."""
    marks = directory / "marks"
    marks.mkdir(parents=True)
    settings = {"NOVAWF_EXECUTORS__PYTHON__PATH": str(APPS), "PEERS_MARKS": str(marks)}
    async with running(directory / "fleet", stamp, NOVAS, pace=0, settings=settings) as fleet:
        env = _environment(directory, stamp, marks)
        env |= {"PEERS_HOME": str(fleet.home), "PEERS_NOVAS": ",".join(NOVAS)}
        env["PYTHONPATH"] = os.pathsep.join((str(ROOT), env["PYTHONPATH"]))
        async with fleet.client() as client:
            await fleet.listening(client, len(NOVAS))
            store_pid = int((await client.redis.info("server"))["process_id"])
        system = System("novawf", Path(sys.executable), marks, env, store_pid)
        system.fleet_pid = fleet.pid
        await system.client("warm")
        yield system


@contextlib.asynccontextmanager
async def peer(chosen: Peer, python: Path, directory: Path, stamp: str) -> AsyncIterator[System]:
    """A peer with an empty store; its workers start with `go`."""
    marks = directory / "marks"
    marks.mkdir(parents=True)
    store = EmbeddedStore(directory / "home")
    address = await asyncio.to_thread(store.start)
    try:
        env = _environment(directory, stamp, marks) | chosen.env
        env["PEERS_STORE"] = str(address.path)
        system = System(chosen.app, python, marks, env, store.pid or 0)
        try:
            yield system
        finally:
            if system.workers is not None:
                await _end(system.workers)
    finally:
        await asyncio.to_thread(store.stop)


def _environment(directory: Path, stamp: str, marks: Path) -> dict[str, str]:
    return processes.environment(
        directory, stamp, {"PEERS_MARKS": str(marks), "PYTHONPATH": str(APPS)}
    )


async def _end(workers: asyncio.subprocess.Process) -> None:
    """As its user would end it; what is left after that by force."""
    members = processes.living([workers.pid, *processes.below(workers.pid)])
    if workers.returncode is None:
        workers.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(workers.wait(), STOP_S)
    except TimeoutError:
        workers.kill()
        await workers.wait()
    processes.end(members)
