"""What one finished task leaves in the store before retention takes it away, key by key.

First without Ray: tasks are admitted, claimed and completed by the real scripts, nothing else
happens, so the growth of the store's data (`used_memory_dataset`) is theirs alone. Then a smaller
batch through a real fleet, as a check on the first: heartbeats and reports are in it. Commands
carry what a quiet command leaves: exit code, duration, a line of output.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from novawf.client import Fleet
from novawf.clock import monotonic_s
from novawf.executors.base import Outcome
from novawf.store import keys
from novawf.store.connect import connect
from novawf.tasks.claims import Claim
from novawf.tasks.model import TaskSpec
from novawf.workflow.attempt import Attempt
from tests.bench import bare_store, queue_alone
from tests.bench.fleet_under_test import running, until
from tests.bench.measure import Options, Result, Target, progress
from tests.bench.queue_alone import QueueAlone

TARGETS = (
    Target("callable_bytes.whole", "<=", 1536.0),
    Target("command_bytes.whole", "<=", 1536.0),
)
LIMIT_S = 300.0
TASKS = 10_000
NOVAS = ("torch", "echo")
CALLABLE = {"title": "no-op", "callable": "bench_jobs:noop"}
COMMAND = {"title": "Count lines", "argv": ["wc", "-l", "data.csv"]}
OUTCOMES = {
    "callable": Outcome(ok=True, duration_s=0.0004),
    "command": Outcome(
        ok=True, exit_code=0, stdout_tail="1042 data.csv\n", output_bytes=14, duration_s=0.0123
    ),
}


async def run(directory: Path, stamp: str, options: Options) -> Result:
    count = options.count or TASKS
    result = Result()
    for name, task in (("callable", CALLABLE), ("command", COMMAND)):
        progress(f"bytes: {count} finished tasks, {name}")
        async with queue_alone.running(directory / name) as alone:
            log = directory / name / "store" / "appendonlydir"
            before, log_before = await _memory(alone.redis), _size(log)
            await _through(alone, [TaskSpec.parse(task)] * count, OUTCOMES[name])
            grown = await _memory(alone.redis) - before
            result.figures[f"{name}_bytes"] = {
                "whole": round(grown / count, 1),
                **await _by_key(alone.redis, count),
            }
            result.figures[f"{name}_log_bytes"] = round((_size(log) - log_before) / count, 1)
    fleet_count = max(200, count // 2)
    progress(f"bytes: {fleet_count} tasks through a fleet")
    async with (
        running(directory / "fleet", stamp, NOVAS, pace=0) as fleet,
        fleet.client() as client,
    ):
        await fleet.listening(client, len(NOVAS))
        redis: Any = connect(bare_store.address_of(fleet.home), name="bench")
        await client.wait(await client.submit(CALLABLE), 30)
        before = await _memory(redis)
        await _finished(client, redis, fleet_count)
        grown = await _memory(redis) - before
        result.baseline["through_a_fleet_bytes"] = {
            "whole": round(grown / fleet_count, 1),
            **await _by_key(redis, fleet_count),
        }
        await redis.aclose()
    return result


async def _through(alone: QueueAlone, specs: list[TaskSpec], outcome: Outcome) -> None:
    """Admit, claim, complete; what is recorded is what a Nova would record."""
    await alone.admit(specs)
    claim: Claim | None = await alone.claim()
    while claim is not None:
        attempt = Attempt(claim, started_s=monotonic_s(), outcome=outcome)
        claim = await alone.complete(
            claim, attempt.result_json(queue_alone.NOVA), attempt.detail(), claim_next=True
        )


async def _finished(client: Fleet, redis: Any, count: int) -> None:
    """No-op callables through the fleet, all completed."""
    done = int(await redis.hget(keys.TASK_COUNTS, "completed"))
    await asyncio.gather(*(client.submit_many([CALLABLE] * (count // 4)) for _ in range(4)))
    wanted = done + count // 4 * 4

    async def completed() -> int:
        return int(await redis.hget(keys.TASK_COUNTS, "completed"))

    await until(completed, lambda n: n if n >= wanted else None, 60, f"{count} tasks completed")


async def _memory(redis: Any) -> int:
    """Bytes of data, the server's own overhead aside."""
    return int((await redis.info("memory"))["used_memory_dataset"])


async def _by_key(redis: Any, count: int) -> dict[str, float]:
    """Bytes per task of every key that grows with the number of tasks."""
    found = {}
    async for key in redis.scan_iter(count=1000):
        size = await redis.memory_usage(key, samples=0)
        if size and size / count >= 1:
            found[key] = round(size / count, 1)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
