"""`novawf safety check --private`: a fleet of its own, put to the test.

Each drill breaks or asks for something in a real fleet in a new home, and sees that nothing starts
that must not, and that work goes on afterwards. Nothing of the user's is touched: home, store and
Ray session are the drill's, and all of it is gone at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from novawf.audit.chain import verify
from novawf.clock import monotonic_s
from novawf.errors import NovawfError
from novawf.limits.rate_limiter import RateLimiter
from novawf.processes.tree import PR_SET_PDEATHSIG, prctl
from novawf.safety.assembly import MECHANISMS
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.store import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from novawf.client import Fleet

STARTED_WITHIN_S = 120.0
HEARD_WITHIN_S = 20.0
STAYS_S = 1.0
"""So long it is watched that what may not start does not."""
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SAFETY__REFRESH_S": "0.1",
    "NOVAWF_SAFETY__VALID_S": "1",
    "NOVAWF_SAFETY__FROSTY__BASE_S": "1",
    "NOVAWF_SAFETY__FROSTY__CAP_S": "1",
    "NOVAWF_SAFETY__API_GUARDIAN__EMERGENCY_S": "1",
    "NOVAWF_LIMITS__REQUESTS_PER_MINUTE": "7",
    "NOVAWF_LIMITS__CONCURRENT": "3",
    "NOVAWF_BUDGET__USD_TOTAL": "1",
}
"""As shipped, but that all which ends by itself ends within seconds, and limits are soon met."""
INCIDENT = '#!/bin/sh\nclaude -p "go on"\nexec "$0"\n'
"""The pattern behind the hook governor (spec §5.3)."""


class DrillError(Exception):
    """What was to hold does not."""


Row = dict[str, Any]
Drill = Callable[["World"], Awaitable[str]]


class World:
    """The private fleet, as drills see it."""

    def __init__(self, fleet: Fleet, home: Path, supervisor: subprocess.Popen[bytes]) -> None:
        self.fleet = fleet
        self.home = home
        self.supervisor = supervisor

    async def submit(self, *argv: str) -> str:
        """One command."""
        return await self.fleet.submit({"title": "safety drill", "argv": list(argv or ("true",))})

    async def completes(self, task_id: str) -> None:
        """Raises DrillError."""
        task = await self.fleet.wait(task_id, HEARD_WITHIN_S)
        if task["status"] != "completed":
            raise DrillError(f"{task_id} is {task['status']}")

    async def stays_pending(self, task_id: str) -> None:
        """Raises DrillError when it starts."""
        await asyncio.sleep(STAYS_S)
        status = (await self.fleet.task(task_id))["status"]
        if status != "pending":
            raise DrillError(f"{task_id} is {status} though nothing may start")

    async def held_for(self, words: str) -> None:
        """Until nothing may start for this reason."""
        until_s = monotonic_s() + HEARD_WITHIN_S
        while words not in (said := str((await self.fleet.why())["sentence"])):
            if monotonic_s() > until_s:
                raise DrillError(f"not held; it says: {said}")
            await asyncio.sleep(0.05)

    def novawf(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """The command line itself."""
        return subprocess.run(
            [sys.executable, "-m", "novawf.cli.entry", "--home", str(self.home), *argv],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


async def _starts(world: World) -> str:
    await world.completes(await world.submit())
    return "a task runs"


async def _stop(world: World) -> str:
    stop = await world.fleet.emergency_stop("safety drill", by="safety drill")
    task_id = await world.submit()
    await world.stays_pending(task_id)
    await world.fleet.clear_stop(by="safety drill")
    await world.completes(task_id)
    silent = stop.acknowledged.silent
    return "nothing starts until it is cleared" + (f"; silent: {silent}" if silent else "")


def _memory(name: str) -> Drill:
    async def drill(world: World) -> str:
        client: Any = world.fleet.redis
        await client.hset(keys.SAFETY_STATE, name, "garbage")
        await world.held_for(f"what {name} remembers cannot be read")
        task_id = await world.submit()
        await world.stays_pending(task_id)
        await world.fleet.reset_safety(name, by="safety drill")
        await world.completes(task_id)
        return "broken, it holds all work; reset, work goes on"

    return drill


async def _emergency(world: World) -> str:
    event = SafetyEvent(Kind.API_HAMMERING, "safety drill", "a call without a permit")
    await report(world.fleet.redis, world.fleet.clock, event)
    await world.held_for("a call without a permit")
    await world.completes(await world.submit())
    return "a call without a permit halts the fleet for a while"


async def _safety_actor(world: World) -> str:
    actors = (await world.fleet.status())["actors"]
    pid = next(actor["pid"] for actor in actors if actor["name"] == "safety")
    os.kill(pid, signal.SIGSTOP)
    try:
        await world.held_for("safety verdict expired")
        task_id = await world.submit()
        await world.stays_pending(task_id)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    await world.completes(task_id)
    return "stopped, its verdict expires and nothing starts"


async def _limits(world: World) -> str:
    from novawf.why.records import limit_settings  # noqa: PLC0415 - pydantic

    settings = limit_settings(await world.fleet.said())
    limiter = RateLimiter(world.fleet.redis, world.fleet.clock, settings)
    granted = []
    with contextlib.suppress(NovawfError):
        for _ in range(settings.concurrent + 1):
            granted.append(await limiter.acquire("critical", "safety drill", STAYS_S))
    if len(granted) != settings.concurrent:
        raise DrillError(f"{len(granted)} requests at once, {settings.concurrent} are allowed")
    for permit in granted:
        await limiter.void(permit.id)
    with contextlib.suppress(NovawfError):
        for _ in range(settings.requests_per_minute):
            permit = await limiter.acquire("critical", "safety drill", STAYS_S)
            granted.append(permit)
            await limiter.void(permit.id)
    await limiter.close()
    if len(granted) != settings.requests_per_minute:
        raise DrillError(f"{len(granted)} in a minute, {settings.requests_per_minute} are allowed")
    return f"{settings.concurrent} at once and {len(granted)} a minute, no more"


async def _budget(world: World) -> str:
    client: Any = world.fleet.redis
    await client.hset(keys.BUDGET_SPENT, "fleet|total|usd", "garbage")
    await world.held_for("novawf budget repair")
    await world.fleet.repair_budget(apply=True)
    await world.completes(await world.submit())
    return "broken budgets hold all work; repaired, work goes on"


async def _hooks(world: World) -> str:
    hook = world.home / "stop.sh"
    hook.write_text(INCIDENT)
    hook.chmod(0o700)
    found = await asyncio.to_thread(world.novawf, "hook", "check", str(hook))
    if found.returncode != 1 or "agent" not in found.stdout:
        raise DrillError(f"the check passes it: {found.stdout or found.stderr}")
    ran = await asyncio.to_thread(world.novawf, "hook", "run", "--", str(hook))
    if ran.returncode != 75:
        raise DrillError(f"it was run: exit code {ran.returncode}, {ran.stderr}")
    return "a stop hook that starts an agent and itself is found and refused"


async def _audit(world: World) -> str:
    verdict = await asyncio.to_thread(verify, world.home / "audit")
    if not verdict.ok:
        raise DrillError("the chain is broken: `novawf audit verify`")
    return "the chain holds over all that was done here"


async def _orphans(world: World) -> str:
    """The last one: it ends the fleet by SIGKILL."""
    pids = world.home / "pids"
    script = f"setsid sleep 600 & echo $! >{pids}; exec sleep 600"
    task_id = await world.submit("sh", "-c", script)
    until_s = monotonic_s() + HEARD_WITHIN_S
    while not pids.exists() or not pids.read_text().strip():
        if monotonic_s() > until_s:
            raise DrillError(f"{task_id} does not start")
        await asyncio.sleep(0.05)
    pid = int(pids.read_text())
    descriptor = os.pidfd_open(pid)
    try:
        world.supervisor.kill()
        began_s = monotonic_s()
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(descriptor, gone.set)
        try:
            async with asyncio.timeout(10):
                await gone.wait()
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise DrillError("a process that left its session outlived its fleet") from None
        finally:
            asyncio.get_running_loop().remove_reader(descriptor)
    finally:
        os.close(descriptor)
    return f"supervisor killed: its commands were gone in {monotonic_s() - began_s:.1f} s"


DRILLS: Mapping[str, Drill] = {
    "fleet": _starts,
    "emergency_stop": _stop,
    **{name: _memory(name) for name in MECHANISMS},
    "emergency": _emergency,
    "safety_actor": _safety_actor,
    "limits": _limits,
    "budget": _budget,
    "hooks": _hooks,
    "audit": _audit,
    "orphans": _orphans,
}
"""In their order."""


async def run(progress: Callable[[str], None]) -> list[Row]:
    """All drills, one after the other: `{"check", "ok", "found": [sentence]}` each. `progress` is
    told before each. Raises NovawfError when there is no fleet to drill."""
    rows = []
    async with _fleet(progress) as world:
        for name, drill in DRILLS.items():
            progress(name)
            try:
                rows.append({"check": name, "ok": True, "found": [await drill(world)]})
            except (DrillError, NovawfError, TimeoutError, OSError) as error:
                rows.append({"check": name, "ok": False, "found": [str(error) or repr(error)]})
    return rows


@contextlib.asynccontextmanager
async def _fleet(progress: Callable[[str], None]) -> AsyncIterator[World]:
    from novawf.cli.lifecycle import supervisor_path  # noqa: PLC0415
    from novawf.client import Fleet  # noqa: PLC0415
    from novawf.settings import environment  # noqa: PLC0415

    home = Path(tempfile.mkdtemp(prefix="novawf-drill-"))
    env = {k: v for k, v in environment().items() if not k.startswith("NOVAWF_")} | SETTINGS
    argv = [
        *(sys.executable, str(supervisor_path()), "--home", str(home), "--novas", "drill"),
        *("--pace", "0", "--momentum", "off", "--no-console", "--metrics-port", str(_free_port())),
    ]
    progress("start of a private fleet")
    supervisor = _spawn(argv, env, home)
    try:
        await _until_listening(home, supervisor)
        async with Fleet.connect(home=home) as fleet:
            yield World(fleet, home, supervisor)
            if supervisor.poll() is not None:  # its store waits to be adopted: nobody will
                with contextlib.suppress(RedisError, OSError):
                    await fleet.redis.shutdown(nosave=True)
    finally:
        if supervisor.poll() is None:
            supervisor.send_signal(signal.SIGTERM)
        await asyncio.to_thread(_wait, supervisor)
        await asyncio.to_thread(_remove, home)


def _spawn(argv: list[str], env: dict[str, str], home: Path) -> subprocess.Popen[bytes]:
    """A supervisor that is told to end when this process dies, however it does."""
    with (home / "fleet.out").open("wb") as out:
        return subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=home,
            preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGTERM),  # noqa: PLW1509 - no threads
        )  # fmt: skip


async def _until_listening(home: Path, supervisor: subprocess.Popen[bytes]) -> None:
    from novawf.client import Fleet  # noqa: PLC0415

    until_s = monotonic_s() + STARTED_WITHIN_S
    while monotonic_s() < until_s and supervisor.poll() is None:
        with contextlib.suppress(NovawfError):
            async with Fleet.connect(home=home) as fleet:
                novas = (await fleet.status())["novas"]
                if novas and all(nova["listening"] for nova in novas):
                    return
        await asyncio.sleep(0.2)
    said = (home / "fleet.out").read_text(errors="replace").strip().splitlines()
    raise NovawfError(f"the private fleet does not start: {said[-1] if said else 'it is silent'}")


def _wait(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(60)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()


def _remove(home: Path) -> None:
    """The last of its processes may still be writing there."""
    until_s = monotonic_s() + HEARD_WITHIN_S
    while home.exists() and monotonic_s() < until_s:
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
