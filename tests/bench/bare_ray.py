"""The baseline that every figure stands beside: bare Ray actors in a session equal to the fleet's.

Run as a process of its own (`python -m tests.bench.bare_ray MODE …`), because a driver has one Ray
and starting it is part of what is measured. Answers one JSON document; `idle` then stays until its
standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import ray

from actors.session import RaySession

NOVAS = 3


class Bare:
    """As little as an actor can be."""

    def pid(self) -> int:
        return os.getpid()

    def noop(self) -> None:
        return None

    def started(self) -> int:
        return time.monotonic_ns()


class Pending:
    """As little as an actor can be that is watched by a pending call, as Novas are."""

    def __init__(self) -> None:
        self._never = asyncio.Event()

    async def pid(self) -> int:
        return os.getpid()

    async def join(self) -> None:
        await self._never.wait()


def start_ray(novas: int, dashboard_port: int | None = None) -> None:
    """A session as `actors.fleet` starts it for so many Novas."""
    RaySession(
        dashboard=dashboard_port is not None,
        dashboard_port=dashboard_port,
        workers=min(novas + 3, 2 * (os.cpu_count() or 1) + 2),
    ).start({})


def make(kind: type, name: str) -> Any:
    """One actor, with the options that `actors.handles.create` gives."""
    options = {"name": name, "num_cpus": 0, "max_restarts": 0, "max_task_retries": 0}
    return ray.remote(kind).options(**options).remote()


def latency(count: str) -> dict[str, Any]:
    """Call → first line of the method, one at a time, the actor idle before each."""
    start_ray(NOVAS)
    actor = make(Bare, "bare")
    for _ in range(20):
        ray.get(actor.started.remote())
    starts, rounds = [], []
    for _ in range(int(count)):
        time.sleep(random.uniform(0.05, 0.15))
        began_ns = time.monotonic_ns()
        started_ns = ray.get(actor.started.remote())
        rounds.append((time.monotonic_ns() - began_ns) / 1e6)
        starts.append((started_ns - began_ns) / 1e6)
    return {"start_ms": starts, "round_ms": rounds}


def throughput(seconds: str) -> dict[str, Any]:
    """No-op calls to two actors: one in flight to each, and as many as Ray takes."""
    start_ray(2)
    actors = [make(Bare, f"bare-{number}") for number in range(2)]
    ray.get([actor.noop.remote() for actor in actors for _ in range(100)])

    def in_turn() -> int:
        pending = {actor.noop.remote(): actor for actor in actors}
        done = 0
        deadline_s = time.monotonic() + float(seconds)
        while time.monotonic() < deadline_s:
            ready, _ = ray.wait(list(pending), num_returns=1)
            for reference in ready:
                actor = pending.pop(reference)
                pending[actor.noop.remote()] = actor
                done += 1
        ray.get(list(pending))
        return done

    def pipelined() -> int:
        done = 0
        deadline_s = time.monotonic() + float(seconds)
        while time.monotonic() < deadline_s:
            ray.get([actor.noop.remote() for actor in actors for _ in range(250)])
            done += 500
        return done

    def rate(calls: Callable[[], int]) -> float:
        began_s = time.monotonic()
        return calls() / (time.monotonic() - began_s)

    return {"in_turn_per_s": rate(in_turn), "pipelined_per_s": rate(pipelined)}


def idle() -> dict[str, Any]:
    """Three actors that do nothing but pend; the caller reads what that costs."""
    start_ray(NOVAS)
    actors = [make(Pending, f"bare-{number}") for number in range(NOVAS)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    globals()["kept"] = (actors, [actor.join.remote() for actor in actors])
    return {"pids": pids, "driver": os.getpid()}


def many(count: str) -> dict[str, Any]:
    """So many actors that do nothing but pend; s from the first to the last that answers."""
    start_ray(int(count))
    began_s = time.monotonic()
    actors = [make(Pending, f"bare-{number}") for number in range(int(count))]
    pids = ray.get([actor.pid.remote() for actor in actors])
    ready_s = time.monotonic() - began_s
    globals()["kept"] = (actors, [actor.join.remote() for actor in actors])
    return {"pids": pids, "driver": os.getpid(), "ready_s": ready_s}


def coldstart(dashboard_port: str) -> dict[str, Any]:
    """Ray with its dashboard and three actors; CLOCK_MONOTONIC of each step, s."""
    imported_s = time.monotonic()
    start_ray(NOVAS, int(dashboard_port))
    started_s = time.monotonic()
    actors = [make(Bare, f"bare-{number}") for number in range(NOVAS)]
    ray.get([actor.pid.remote() for actor in actors])
    return {"imported_s": imported_s, "ray_s": started_s, "ready_s": time.monotonic()}


def recovery(count: str) -> dict[str, Any]:
    """SIGKILL of an actor → the first call to its successor answers."""
    start_ray(NOVAS)
    others = [make(Pending, f"other-{number}") for number in range(NOVAS - 1)]
    pending = [other.join.remote() for other in others]
    actor = make(Pending, "bare")
    pid = ray.get(actor.pid.remote())
    seen, back = [], []
    for _ in range(int(count)):
        time.sleep(random.uniform(1.0, 1.5))
        joined = actor.join.remote()
        time.sleep(0.1)
        killed_s = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        ray.wait([joined])
        seen.append((time.monotonic() - killed_s) * 1000)
        actor = joined = None  # the handle holds the name
        while True:
            try:
                actor = make(Pending, "bare")
                break
            except ValueError:
                time.sleep(0.005)
        pid = ray.get(actor.pid.remote())
        back.append((time.monotonic() - killed_s) * 1000)
    del pending
    return {"seen_ms": seen, "back_ms": back}


def main(mode: str, *args: str) -> None:
    modes: dict[str, Callable[..., dict[str, Any]]] = {
        "latency": latency,
        "throughput": throughput,
        "idle": idle,
        "coldstart": coldstart,
        "recovery": recovery,
        "many": many,
    }
    print(json.dumps(modes[mode](*args)), flush=True)
    if mode in ("idle", "many"):
        sys.stdin.read()
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
