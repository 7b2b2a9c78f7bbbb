"""What a look for work costs: its time at 10,000 queued tasks, and what an idle hour sends.

One process, one embedded store, no Ray: a look has no more to it. Two cases of 10,000 queued
tasks: ready for anybody (then momentum is not asked), and aimed at another Nova (then it is, and
most often has nothing new). Between two looks records come in, as in a fleet at work.

The idle hour is one Nova alone, with its looks and every built-in job that falls due, claimed, run
and ended as its cycle does; heartbeats and the idle wait, which `idle` measures, come on top.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from novawf.clock import ManualClock
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import connect
from novawf.store.embedded import EmbeddedStore
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.work.config import WorkSettings
from novawf.work.discovery import idle_work
from novawf.work.idling import IdleWork
from novawf.work.jobs.catalogue import maintenance_jobs
from novawf.work.jobs.table import JobContext
from novawf.workflow.identity import NovaBeat
from novawf.workflow.state_data import StateData
from tests.bench.measure import Options, Result, Target, progress, spread

TARGETS = (
    Target("ready_ms.p95", "<=", 20.0),
    Target("filled_up_ms.p95", "<=", 20.0),
    Target("idle_hour_sent_mb", "<=", 0.1),
)
LIMIT_S = 300.0
QUEUED = 10_000
RECORDS = 1000


async def run(directory: Path, stamp: str, options: Options) -> Result:
    looks = options.count or 300
    result = Result()
    store = EmbeddedStore(directory)
    address = store.start()
    redis: Any = connect(address, name="bench")
    try:
        world = World(redis)
        for case, nova in (("ready", None), ("filled_up", "echo")):
            await redis.flushall()
            progress(f"discovery: {QUEUED} tasks, {case}")
            await world.fill(nova)
            result.figures[f"{case}_ms"] = spread(await world.looks(looks))
        await redis.flushall()
        sent, received, jobs = await world.idle_hour()
        result.figures |= {
            "idle_hour_sent_mb": round(sent / 1e6, 4),
            "idle_hour_received_mb": round(received / 1e6, 4),
            "idle_hour_jobs": jobs,
        }
    finally:
        await redis.aclose()
        store.stop()
    return result


class World:
    """A queue, and one Nova that has nothing to do."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.clock = ManualClock(int(time.time() * 1000))
        self.tasks = TaskSettings()
        self.queue = TaskQueue(redis, self.clock, self.tasks)

    def idle(self) -> IdleWork:
        return idle_work("torch", self.queue, WorkSettings(), WakeSettings(), 1.0)

    async def fill(self, nova: str | None) -> None:
        spec = TaskSpec(title="queued", callable="jobs:work", nova=nova)
        for _ in range(QUEUED):
            await self.queue.admit(spec, request_id())
        await self.records(RECORDS)

    async def records(self, count: int) -> None:
        for stream in (keys.completed("torch"), keys.completed("fleet"), keys.progress("torch")):
            for number in range(count):
                await self.redis.xadd(
                    stream,
                    {"task_id": f"TORCH-1-{number:06x}", "title": "queued", "status": "blocked",
                     "outcome": "failed", "results": f"exit code {number % 7}",
                     "description": "of some length, " * 10},
                )  # fmt: skip

    async def looks(self, count: int) -> list[float]:
        """Milliseconds of whole looks: discoverers, ranking, admission."""
        processor = self.idle().processor
        times_ms = []
        for _ in range(count):
            await self.records(3)
            began_s = time.perf_counter()
            found = await processor.discover()
            times_ms.append((time.perf_counter() - began_s) * 1000)
            assert not found.failed, processor.counts
            self.clock.advance(60_000)
        return times_ms

    async def idle_hour(self) -> tuple[int, int, int]:
        """Bytes sent and received by one Nova in an hour without work, and jobs done."""
        gate = Gate(self.redis, self.clock)
        await gate.refresh(safe("bench", self.clock.now_ms() + 7_200_000))
        epoch = await take_identity(self.redis, "torch")
        now_ms = self.clock.now_ms()
        beat = NovaBeat(1, epoch, "work_discovery", "work_phase_1", "", 1, now_ms, now_ms, now_ms)
        await self.redis.hset(keys.NOVAS, "torch", beat.to_json())
        claimant = Claimant(self.redis, self.clock, self.tasks, "torch", epoch)
        jobs = maintenance_jobs(JobContext(self.redis, self.clock, "torch"))
        idle, state, done = self.idle(), StateData().to_hash(), 0
        before = await self._traffic()
        for _ in range(3600):
            if await idle.look():
                claim = await claimant.claim(state)
                while isinstance(claim, Claim):
                    idle.worked(claim.spec["work_type"])
                    answer = await jobs[claim.spec["job"]](tuple(claim.spec.get("args", ())))
                    ended = await claimant.finish(
                        claim, Ending("completed", "succeeded"), result=str(answer),
                        detail="done", state=state,
                    )  # fmt: skip
                    claim, done = ended.following, done + 1
            self.clock.advance(1000)
        after = await self._traffic()
        return after[0] - before[0], after[1] - before[1], done

    async def _traffic(self) -> tuple[int, int]:
        info = await self.redis.info("stats")  # there is no other client
        return int(info["total_net_input_bytes"]), int(info["total_net_output_bytes"])
