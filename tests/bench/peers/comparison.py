"""No-op tasks by us and by what users would pick instead, side by side in one run.

Rounds in which the systems take turns, each time in another order, two workers each, on equal
stores that are empty at first. A round of one system: so many tasks are queued while nothing works,
then its workers take them (rate: between the start of the first tenth and of the last, by each
task's own note of when it began); then, idle, tasks are submitted one at a time (from before the
call to that note).

All run the same plain function, installed as their users install them. `_tuned` peers have besides
a parser and an event loop in C, which none of them brings along, and taskiq's task is a coroutine
there, which it runs without a thread. Ratios are taken within a round and the median over the
rounds is shown, so that a machine that others keep busy disturbs them least.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measure import Options, Result, Target, progress, spread
from tests.bench.peers import environment, systems
from tests.bench.peers.apps import marks

TARGETS = (
    Target("tasks_per_s_to_taskiq", ">=", 1.3),
    Target("start_p50_to_taskiq", "<=", 1.0),
    Target("tasks_per_s_to_huey", ">=", 1.0),
)
LIMIT_S = 1800.0
TASKS = 10_000
SINGLE_TASKS = 80
ROUNDS = 3
STUCK_S = 30.0
LOOK_EVERY_S = 0.02
OURS = "novawf"


@dataclass(frozen=True, slots=True)
class Round:
    """One system once."""

    tasks_per_s: float
    whole_per_s: float
    cpu_us: float
    queued_per_s: float
    start_ms: list[float]
    call_ms: list[float]


async def run(directory: Path, stamp: str, options: Options) -> Result:
    tasks = options.count or TASKS
    rounds = options.rounds or ROUNDS
    pythons = {kind: await environment.python(kind) for kind in environment.FILES}
    names = [OURS, *systems.PEERS]
    found: dict[str, list[Round]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            place = directory / f"{name}{number}"
            progress(f"peers: round {number + 1} of {rounds}, {name}")
            found[name].append(await _round(name, pythons, place, stamp, tasks))
    result = Result()
    result.figures = {"tasks": tasks, "rounds": rounds, **_table(found[OURS])}
    for name in systems.PEERS:
        result.baseline[name] = _table(found[name])
    result.baseline["versions"] = environment.versions()
    for name in systems.PEERS:
        pairs = list(zip(found[OURS], found[name], strict=True))
        result.ratios |= {
            f"tasks_per_s_to_{name}": _median([a.tasks_per_s / b.tasks_per_s for a, b in pairs]),
            f"start_p50_to_{name}": _median(
                [statistics.median(a.start_ms) / statistics.median(b.start_ms) for a, b in pairs]
            ),
            f"cpu_to_{name}": _median([a.cpu_us / b.cpu_us for a, b in pairs]),
        }
    return result


async def _round(name: str, pythons: dict[str, Path], place: Path, stamp: str, tasks: int) -> Round:
    if name == OURS:
        running = systems.novawf(place, stamp)
    else:
        peer = systems.PEERS[name]
        running = systems.peer(peer, pythons[peer.kind], place, stamp)
    async with running as system:
        before = marks.count(system.marks)
        queued = await system.client("queue", tasks)
        await system.go()
        await _reached(system, before + tasks // 10)
        cpu_s, cpu_from = system.cpu_s(), marks.count(system.marks)
        await _reached(system, before + tasks * 9 // 10)
        cpu_us = (system.cpu_s() - cpu_s) / (marks.count(system.marks) - cpu_from) * 1e6
        await _reached(system, before + tasks)
        began = marks.starts(system.marks)[before:]
        await asyncio.sleep(1.0)  # what is left to acknowledge
        single = await system.client("latency", SINGLE_TASKS)
        # The first of them warmed the client up.
        alone = marks.starts(system.marks)[before + len(began) + 1 :]
        pairs = zip(alone, single["sent_ns"], strict=True)
        starts_ms = [(there - here) / 1e6 for there, here in pairs]
        return Round(
            tasks_per_s=_rate(began[len(began) // 10 : len(began) * 9 // 10]),
            whole_per_s=_rate(began),
            cpu_us=cpu_us,
            queued_per_s=queued["queued_per_s"],
            start_ms=starts_ms,
            call_ms=single["call_ms"],
        )


async def _reached(system: systems.System, wanted: int) -> None:
    """Until so many have begun; looks at files, so the system is not disturbed."""
    last, since_s = -1, time.monotonic()
    while (begun := marks.count(system.marks)) < wanted:
        if begun != last:
            last, since_s = begun, time.monotonic()
        elif time.monotonic() - since_s > STUCK_S:
            progress(f"peers: {system.app} said {system.last_words()}")
            raise TimeoutError(f"{system.app}: {wanted - begun} tasks never began")
        await asyncio.sleep(LOOK_EVERY_S)


def _rate(starts_ns: list[int]) -> float:
    return (len(starts_ns) - 1) / (starts_ns[-1] - starts_ns[0]) * 1e9


def _table(rounds: list[Round]) -> dict[str, Any]:
    """The median of each rate; latencies of all rounds together."""
    return {
        "tasks_per_s": _median([one.tasks_per_s for one in rounds], 0),
        "tasks_per_s_by_round": {
            f"round_{number}": round(one.tasks_per_s) for number, one in enumerate(rounds, 1)
        },
        "tasks_per_s_first_to_last": _median([one.whole_per_s for one in rounds], 0),
        "cpu_us_per_task": _median([one.cpu_us for one in rounds], 0),
        "queued_per_s": _median([one.queued_per_s for one in rounds], 0),
        "start_ms": spread([value for one in rounds for value in one.start_ms]),
        "submit_call_ms": spread([value for one in rounds for value in one.call_ms]),
    }


def _median(values: list[float], digits: int = 2) -> float:
    return round(statistics.median(values), digits or None)
