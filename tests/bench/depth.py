"""What a claim costs with a long queue, beside the same claim with a short one.

Two stores at once, without Ray: one with 100 tasks queued, one with 100,000, of all five tiers, a
tenth aimed at the Nova that claims. They take turns within the same moment; after each claim the
task is ended and another admitted, so that both depths stay as they are. `finish` is how a busy
Nova claims: the end of one task and the claim of the next in one call.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from novawf.store import keys
from novawf.tasks.model import TIER_MS, TaskSpec
from tests.bench import queue_alone
from tests.bench.measure import Options, Result, Target, progress, ratio, spread
from tests.bench.queue_alone import QueueAlone

TARGETS = (
    Target("claim_p50_deep_to_shallow", "<=", 1.5),
    Target("finish_p50_deep_to_shallow", "<=", 1.5),
)
LIMIT_S = 300.0
SHALLOW, DEEP = 100, 100_000
ROUNDS = 1500


async def run(directory: Path, stamp: str, options: Options) -> Result:
    rounds = options.count or ROUNDS
    result = Result()
    async with (
        queue_alone.running(directory / "shallow") as shallow,
        queue_alone.running(directory / "deep") as deep,
    ):
        for alone, depth in ((shallow, SHALLOW), (deep, DEEP)):
            progress(f"depth: queueing {depth:,} tasks")
            began_s = time.monotonic()
            await alone.admit([_spec(number) for number in range(depth)])
            if depth == DEEP:
                result.figures["admitted_per_s"] = round(depth / (time.monotonic() - began_s))
        progress(f"depth: {rounds} claims of each")
        pairs: dict[str, QueueAlone] = {"shallow": shallow, "deep": deep}
        claims: dict[str, list[float]] = {name: [] for name in pairs}
        finishes: dict[str, list[float]] = {name: [] for name in pairs}
        for number in range(rounds):
            order = list(pairs)
            random.shuffle(order)
            for name in order:
                claim_ms, finish_ms = await _once(pairs[name], number)
                claims[name].append(claim_ms)
                finishes[name].append(finish_ms)
        for name, alone in pairs.items():
            left = await alone.redis.hget(keys.TASK_COUNTS, "pending")
            result.figures[f"{name}_queued"] = int(left)
    result.figures |= {
        "claim_ms_at_100000": spread(claims["deep"]),
        "finish_ms_at_100000": spread(finishes["deep"]),
    }
    result.baseline = {
        "claim_ms_at_100": spread(claims["shallow"]),
        "finish_ms_at_100": spread(finishes["shallow"]),
    }
    for call in ("claim", "finish"):
        result.ratios[f"{call}_p50_deep_to_shallow"] = ratio(
            result.figures[f"{call}_ms_at_100000"]["p50"],
            result.baseline[f"{call}_ms_at_100"]["p50"],
        )
    return result


async def _once(alone: QueueAlone, number: int) -> tuple[float, float]:
    """Claim, end it and claim the next, end that; ms of the claim and of the first end."""
    await alone.admit([_spec(number), _spec(number + 1)])
    began_ns = time.perf_counter_ns()
    claim = await alone.claim()
    claimed_ns = time.perf_counter_ns()
    following: Any = await alone.complete(claim, "", "done", claim_next=True)
    finished_ns = time.perf_counter_ns()
    await alone.complete(following, "", "done", claim_next=False)
    await asyncio.sleep(0)
    return (claimed_ns - began_ns) / 1e6, (finished_ns - claimed_ns) / 1e6


def _spec(number: int) -> TaskSpec:
    tiers = list(TIER_MS)
    return TaskSpec(
        title=f"queued {number}",
        callable="jobs:work",
        priority=tiers[number % len(tiers)],
        nova=queue_alone.NOVA if number % 10 == 0 else None,
    )
