"""A fleet started as users start it, in a home of its own, for one benchmark to look at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from novawf.client import Fleet
from tests.bench import processes
from tests.bench.measure import progress

V = TypeVar("V")

ROOT = Path(__file__).resolve().parents[2]
JOBS = Path(__file__).parent / "jobs"
START_S = 60.0
STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Said:
    """One line of the supervisor, and when it came (CLOCK_MONOTONIC, s)."""

    at_s: float
    event: str
    fields: dict[str, Any]


class FleetUnderTest:
    """One running supervisor. `running` makes and ends it."""

    def __init__(self, directory: Path, process: asyncio.subprocess.Process) -> None:
        self.home = directory / "home"
        self.process = process
        self.started_s = time.monotonic()
        self.said: list[Said] = []
        self.noise: list[str] = []
        """Lines of its standard output that are no JSON objects: there should be none."""
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    async def heard(
        self, event: str, timeout_s: float, *, after_s: float = 0.0, **fields: Any
    ) -> Said:
        """Wait for the supervisor to say `event` with these fields."""

        def found() -> Said | None:
            for said in self.said:
                same = said.event == event and said.at_s >= after_s
                if same and all(said.fields.get(k) == v for k, v in fields.items()):
                    return said
            return None

        async with asyncio.timeout(timeout_s), self._changed:
            while (said := found()) is None:
                if self._reader.done():
                    raise RuntimeError(f"the supervisor ended before it said {event}")
                await self._changed.wait()
        return said

    def client(self) -> Any:
        """`async with` it for the public interface."""
        return Fleet.connect(home=self.home)

    async def listening(
        self, client: Fleet, novas: int, timeout_s: float = 30.0, *, idle: bool = True
    ) -> dict[str, int]:
        """Wait until so many Novas listen (`idle`: with nothing in hand); their pids."""

        def pids(status: Mapping[str, Any]) -> dict[str, int] | None:
            rows = [n for n in status["novas"] if n["alive"] and n["listening"]]
            if idle:
                rows = [n for n in rows if not n["task"]]
            return {n["id"]: n["pid"] for n in rows} if len(rows) == novas else None

        return await until(client.status, pids, timeout_s, f"{novas} Novas listening")

    async def stop(self) -> int:
        """Ctrl-C, and by force when that does not do."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = await asyncio.wait_for(self.process.wait(), STOP_S)
        except TimeoutError:
            progress(f"the supervisor did not end within {STOP_S:.0f} s: killed")
            self.process.kill()
            code = await self.process.wait()
        await self._reader
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            at_s = time.monotonic()
            try:
                fields = json.loads(line)
                self.said.append(Said(at_s, fields.pop("event"), fields))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.noise.append(line.decode(errors="replace").rstrip())
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    stamp: str,
    novas: tuple[str, ...],
    *,
    pace: float | None = None,
    settings: Mapping[str, str] | None = None,
    dashboard: bool = False,
    wait: bool = True,
) -> AsyncIterator[FleetUnderTest]:
    """A fleet with a fresh home, ended at the end; `wait` for all its Novas first."""
    directory.mkdir(parents=True)
    argv = [sys.executable, str(ROOT / "supervisor.py"), "--json", "--home", f"{directory}/home"]
    argv += ["--novas", ",".join(novas), "--momentum", "off", "--metrics-port", str(free_port())]
    if pace is not None:
        argv += ["--pace", f"{pace:g}"]
    chosen = {
        "NOVAWF_RAY__DASHBOARD": "true" if dashboard else "false",
        "NOVAWF_RAY__DASHBOARD_PORT": str(free_port()),
        "NOVAWF_EXECUTORS__PYTHON__PATH": str(JOBS),
        **(settings or {}),
    }
    stderr = directory / "supervisor.stderr"
    with stderr.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=directory,  # no novawf.toml of somebody's lies here
            env=processes.environment(directory, stamp, chosen),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    fleet = FleetUnderTest(directory, process)
    try:
        if wait:
            await fleet.heard("fleet_started", START_S)
        yield fleet
    except BaseException:
        tail = stderr.read_text(errors="replace")[-2000:]
        if tail:
            progress(f"the supervisor's stderr:\n{tail}")
        raise
    finally:
        await fleet.stop()
        if fleet.noise:
            progress(f"{len(fleet.noise)} lines of the supervisor are no JSON: {fleet.noise[0]!r}")


async def until(
    read: Callable[[], Any],
    judge: Callable[[Any], V | None],
    timeout_s: float,
    what: str,
    every_s: float = 0.02,
) -> V:
    """Read again and again until the judgement is something; fails after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = read()
        if asyncio.iscoroutine(value):
            value = await value
        verdict = judge(value)
        if verdict is not None:
            return verdict
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(every_s)


def free_port() -> int:
    """A TCP port of loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
