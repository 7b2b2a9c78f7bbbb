"""Many processes hammer one API for minutes while the limiter is killed, and the API counts.

The API is a callee of our own on loopback that notes when each request came and when it was
answered (CLOCK_MONOTONIC). Half a dozen Novas' jobs and many outside processes send as fast as they
are let; nobody has a pause of its own. What must hold is read off the callee's notes alone: the
fullest minute and the most at once. `--seconds` sets the length, `--count` the processes.

As a process (`python -m tests.bench.hammer HOME PORT SECONDS`) it is one of the outside ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from tests.bench import processes
from tests.bench.fleet_under_test import ROOT, FleetUnderTest, running, until
from tests.bench.measure import Options, Result, Target, progress

TARGETS = (Target("violations", "<=", 0),)
LIMIT_S = 900.0
NOVAS = ("torch", "echo", "helix", "vaeris", "synergy", "nova-six", "nova-seven", "nova-eight")
PER_MINUTE = 30
CONCURRENT = 5
ANSWER_S = 0.3
"""How long the callee takes over an answer."""
PATIENCE_S = 5.0
START_S = 180.0
_LEFT_S = 20.0
"""So long the last requests may take to end."""
_MINUTE_NS = 60_000_000_000


@dataclass
class Callee:
    """A server that answers slowly and notes everything."""

    answer_s: float = ANSWER_S
    came_ns: list[int] = field(default_factory=list)
    spans_ns: list[tuple[int, int]] = field(default_factory=list)
    port: int = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Callee]:
        """On a free port of loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        came_ns = time.monotonic_ns()
        self.came_ns.append(came_ns)
        try:
            await asyncio.sleep(self.answer_s)
        finally:
            # Before the answer is sent: who gets it reports, and another may begin.
            self.spans_ns.append((came_ns, time.monotonic_ns()))
            with contextlib.suppress(OSError):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                writer.close()

    def fullest_minute(self) -> int:
        """The most requests that came in any 60 s."""
        ordered, first, most = sorted(self.came_ns), 0, 0
        for last, at_ns in enumerate(ordered):
            while at_ns - ordered[first] > _MINUTE_NS:
                first += 1
            most = max(most, last - first + 1)
        return most

    def most_at_once(self) -> int:
        """The most requests that were in its hands at one moment."""
        changes = [(began, 1) for began, _ in self.spans_ns]
        changes += [(ended, -1) for _, ended in self.spans_ns]
        running_now = most = 0
        for _, change in sorted(changes):
            running_now += change
            most = max(most, running_now)
        return most


@dataclass(frozen=True, slots=True)
class Hammering:
    """How hard, and for how long."""

    novas: tuple[str, ...] = NOVAS
    outside: int = 32
    seconds: float = 180.0
    kills: int = 10
    per_minute: int = PER_MINUTE
    concurrent: int = CONCURRENT


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it."""

    requests: int
    span_s: float
    """From the first of them to the last."""
    fullest_minute: int
    most_at_once: int
    kills: int
    away_s: list[float]
    """From each kill to the answer of the next limiter."""
    snapshot: dict[str, Any]
    """`novawf limits` at the end."""


async def hammer(directory: Path, stamp: str, how: Hammering) -> Seen:
    """Start a fleet, let all of them hammer, and kill the limiter at even intervals."""
    settings = {
        "NOVAWF_LIMITS__REQUESTS_PER_MINUTE": str(how.per_minute),
        "NOVAWF_LIMITS__REQUESTS_PER_HOUR": "1000000",
        "NOVAWF_LIMITS__CONCURRENT": str(how.concurrent),
        # The limiter is to come back at once, however often it is killed.
        "NOVAWF_SUPERVISION__MAX_RESTARTS": "1000",
        "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
    }
    callee = Callee()
    async with (
        callee.serving(),
        running(directory / "fleet", stamp, how.novas, settings=settings, wait=False) as fleet,
        contextlib.AsyncExitStack() as stack,
    ):
        await fleet.heard("fleet_started", START_S)  # also on a machine that is busy
        client = await stack.enter_async_context(fleet.client())
        await fleet.listening(client, len(how.novas), 60)
        task = {"callable": "bench_jobs:hammer", "args": [callee.port, how.seconds], "retries": 0}
        ids = [
            await client.submit({**task, "title": f"hammer {name}", "nova": name})
            for name in how.novas
        ]
        others = [await _outside(directory, stamp, fleet, callee, how) for _ in range(how.outside)]
        away_s = []
        for number in range(how.kills):
            await asyncio.sleep(how.seconds / (how.kills + 1))
            away_s.append(await _kill_limiter(client))
            progress(
                f"hammer: killed {number + 1}, back in {away_s[-1]:.2f} s, "
                f"{len(callee.came_ns)} requests so far"
            )
        await asyncio.sleep(how.seconds / (how.kills + 1))
        for other in others:
            await asyncio.wait_for(other.wait(), _LEFT_S + 60)
        for task_id in ids:
            ended = await client.wait(task_id, _LEFT_S + 60)
            if ended["status"] != "completed":
                raise RuntimeError(f"a job failed: {ended['last_attempt']}")
        snapshot = await client.limits()
    return Seen(
        len(callee.came_ns),
        (max(callee.came_ns) - min(callee.came_ns)) / 1e9,
        callee.fullest_minute(),
        callee.most_at_once(),
        how.kills,
        away_s,
        snapshot,
    )


async def run(directory: Path, stamp: str, options: Options) -> Result:
    how = Hammering(
        outside=max(1, (options.count or 40) - len(NOVAS)), seconds=options.seconds or 180.0
    )
    progress(
        f"hammer: {len(how.novas)} Novas and {how.outside} processes for {how.seconds:g} s, "
        f"{how.kills} kills"
    )
    seen = await hammer(directory, stamp, how)
    over = max(0, seen.fullest_minute - how.per_minute)
    over += max(0, seen.most_at_once - how.concurrent)
    result = Result()
    result.figures = {
        "violations": over,
        "requests": seen.requests,
        "fullest_minute": seen.fullest_minute,
        "most_at_once": seen.most_at_once,
        "limiter_kills": seen.kills,
        "limiter_away_s_max": round(max(seen.away_s), 2),
        "granted": seen.snapshot["granted"],
        "never_reported": seen.snapshot["expired"],
        "unused": seen.snapshot["void"],
        "without_permit": seen.snapshot["unpermitted"],
        "use_of_the_minutes": round(
            seen.requests / (how.per_minute * math.ceil(seen.span_s / 60)), 3
        ),
    }
    return result


async def _kill_limiter(client: Fleet) -> float:
    """SIGKILL; how long until another one answers, s."""
    before = await _limiter(client)
    os.kill(before, signal.SIGKILL)
    began_s = time.monotonic()

    def another(status: dict[str, Any]) -> bool | None:
        rows = [actor for actor in status["actors"] if actor["name"] == "limiter"]
        return True if rows and rows[0]["alive"] and rows[0]["pid"] != before else None

    await until(client.status, another, 60, "another limiter", 0.05)
    return time.monotonic() - began_s


async def _limiter(client: Fleet) -> int:
    def pid(status: dict[str, Any]) -> int | None:
        rows = [actor for actor in status["actors"] if actor["name"] == "limiter"]
        return int(rows[0]["pid"]) if rows and rows[0]["alive"] else None

    return await until(client.status, pid, 60, "a limiter")


async def _outside(
    directory: Path, stamp: str, fleet: FleetUnderTest, callee: Callee, how: Hammering
) -> asyncio.subprocess.Process:
    argv = ["-m", "tests.bench.hammer", str(fleet.home), str(callee.port), f"{how.seconds:g}"]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        cwd=ROOT,
        env=processes.environment(directory, stamp, {}),
        stdin=asyncio.subprocess.DEVNULL,
    )


async def outside(home: Path, port: int, seconds: float) -> None:
    """One process that has nothing to do with the fleet but its limits."""
    until_s = time.monotonic() + seconds
    async with Fleet.connect(home=home) as fleet:
        while time.monotonic() < until_s:
            async with contextlib.AsyncExitStack() as permit:
                try:  # who loses patience gives up its place, now and then in the very moment
                    async with asyncio.timeout(PATIENCE_S):
                        await permit.enter_async_context(fleet.api_request())
                except TimeoutError:
                    continue
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\n")
                await reader.read()
                writer.close()


if __name__ == "__main__":
    asyncio.run(outside(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
