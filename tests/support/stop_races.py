"""Races of `stop-all` against claims, in a real fleet; what began is told by the work itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stop_jobs

from novawf.client import Fleet
from novawf.clock import monotonic_s


@dataclass
class Races:
    """What came of them."""

    shut: list[tuple[float, float]] = field(default_factory=list)
    """Wall time of each acknowledgement, and of the order that cleared that stop."""
    latency_s: list[float] = field(default_factory=list)
    """From the call to the acknowledgement."""
    silent: list[tuple[str, ...]] = field(default_factory=list)

    def violations(self, log: Path) -> list[tuple[float, str]]:
        """Starts between an acknowledgement and the order that cleared the stop: how long after
        it, s, and of which task."""
        found = []
        for line in log.read_text().splitlines():
            at, task = line.split()
            for since, until in self.shut:
                if since < float(at) < until:
                    found.append((float(at) - since, task))
        return found


def burst(log: Path, novas: list[str], rng: random.Random) -> list[dict[str, Any]]:
    """Some of everything that can begin."""
    noted = str(log)
    short = {"callable": "stop_jobs:note", "args": [noted]}
    tasks: list[dict[str, Any]] = [{"title": "short", **short} for _ in range(12)]
    tasks += [
        {"title": "command", "argv": stop_jobs.command(noted)},
        {"title": "async", "callable": "stop_jobs:note_async", "args": [noted]},
        {"title": "pinned", "nova": rng.choice(novas), **short},
        {"title": "once", "retries": 0, **short},
        {"title": "slow", "callable": "stop_jobs:note_and_block", "args": [noted, 0.03]},
        {"title": "command", "argv": stop_jobs.command(noted), "nova": rng.choice(novas)},
    ]
    rng.shuffle(tasks)
    return tasks


async def race(
    fleet: Fleet,
    races: Races,
    log: Path,
    novas: list[str],
    rng: random.Random,
    *,
    drain: bool = False,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
    stay_s: float = 0.03,
) -> None:
    """Work flows in and begins, the stop comes at some moment, and goes again."""
    size = log.stat().st_size
    for task in burst(log, novas, rng):
        await fleet.submit(task)
        if rng.random() < 0.1:
            await asyncio.sleep(rng.random() * 0.01)
    async with asyncio.timeout(30):
        while log.stat().st_size == size:
            await asyncio.sleep(0.001)
    await asyncio.sleep(rng.random() * 0.03)
    before()
    began_s = monotonic_s()
    said = (await fleet.emergency_stop("drill", "test", drain)).acknowledged
    races.latency_s.append(monotonic_s() - began_s)
    races.silent.append(said.silent)
    after()
    await asyncio.sleep(stay_s)
    cleared_s = fleet.clock.wall_s()
    await fleet.clear_stop("test")
    races.shut.append((said.at_s, cleared_s))
