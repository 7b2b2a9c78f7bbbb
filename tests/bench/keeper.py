"""What keeping a command costs: its start beside that of a bare one, and a keeper's memory.

Bare is what Python has: `subprocess.Popen` and `os.posix_spawn`, which return once the command is
executed, as `KeeperClient.spawn` does. They take turns, so that a busy moment hits all three. No
fleet and no store: a keeper server alone. `waiting` are the keepers that were forked ahead, and the
processes below them that will be commands.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from pathlib import Path

from novawf.processes.keeper import KeeperClient, SpawnRequest, start_keeper_server
from novawf.processes.tree import children
from tests.bench import processes
from tests.bench.measure import Options, Result, Target, progress, spread

TARGETS = (
    Target("start_more_than_popen_ms.p50", "<=", 5.0),
    Target("start_more_than_posix_spawn_ms.p50", "<=", 5.0),
    Target("keeper_mb.uss", "<=", 12.0),
    Target("keeper_mb.pss", "<=", 12.0),
    Target("waiting_mb.uss", "<=", 12.0),
)
LIMIT_S = 120.0
ROUNDS = 300
KEPT = 20
SETTLE_S = 0.5
"""Until those that wait for the next start are there again."""
TRUE = "/bin/true"
SLEEP = ("/bin/sleep", "60")


async def run(directory: Path, stamp: str, options: Options) -> Result:
    env = processes.environment(directory, stamp, {})
    directory.mkdir(exist_ok=True)
    server = start_keeper_server(directory, env=env)
    client = KeeperClient(server.socket_path)
    try:
        progress("keeper: starts")
        started, ended, bare, spawned, bare_ended = [], [], [], [], []
        for number in range(options.count or ROUNDS):
            request = SpawnRequest((TRUE,), env, "bench:1", f"{directory}/{number}.log")
            began_s = time.perf_counter()
            kept = await client.spawn(request)
            started.append(_ms_since(began_s))
            await kept.wait()
            ended.append(_ms_since(began_s))

            began_s = time.perf_counter()
            process = subprocess.Popen(
                (TRUE,), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            bare.append(_ms_since(began_s))
            process.wait()
            bare_ended.append(_ms_since(began_s))

            began_s = time.perf_counter()
            pid = os.posix_spawn(TRUE, (TRUE,), env)
            spawned.append(_ms_since(began_s))
            os.waitpid(pid, 0)
        progress("keeper: memory")
        running = [
            await client.spawn(SpawnRequest(SLEEP, env, "bench:2", f"{directory}/s{number}.log"))
            for number in range(KEPT)
        ]
        keepers = [keeper["pid"] for keeper in await client.keepers()]
        keeper_mb = processes.memory_mb(keepers)
        server_mb = processes.memory_mb([server.pid])
        for kept in running:
            kept.kill(0)
        await asyncio.gather(*(kept.wait() for kept in running))
        await asyncio.sleep(SETTLE_S)
        waiting = children(server.pid)
        waiting_mb = processes.memory_mb(waiting)
        waiting_command_mb = processes.memory_mb(
            [below for pid in waiting for below in children(pid)]
        )
    finally:
        server.stop()
    result = Result()
    result.figures = {
        "start_ms": spread(started),
        "run_ms": spread(ended),
        "keeper_mb": keeper_mb,
        "waiting_mb": waiting_mb,
        "waiting_command_mb": waiting_command_mb,
        "server_mb": server_mb,
        "kept_at_once": len(keepers),
    }
    result.baseline = {
        "popen_ms": spread(bare),
        "popen_run_ms": spread(bare_ended),
        "posix_spawn_ms": spread(spawned),
    }
    result.ratios = {
        "start_more_than_popen_ms": _more(spread(started), spread(bare)),
        "start_more_than_posix_spawn_ms": _more(spread(started), spread(spawned)),
    }
    return result


def _ms_since(began_s: float) -> float:
    return (time.perf_counter() - began_s) * 1000


def _more(ours: dict[str, float], bare: dict[str, float]) -> dict[str, float]:
    """How much more each quantile is."""
    return {name: round(ours[name] - bare[name], 3) for name in bare if name.startswith("p")}
