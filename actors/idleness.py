"""When a fleet has nothing left to do: the end of `--until-idle`."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import RedisError

from actors.family import Family
from novawf.clock import monotonic_s
from novawf.store import keys
from novawf.streams.lag import stream_statistics
from novawf.tasks.tracker import TaskTracker

LOOK_S = 0.1
AWAY_S = 0.5
QUIET_S = 2.0
FIRST_WORK_S = 10.0
"""It ends after QUIET_S without work, or FIRST_WORK_S when none ever came (decision 008)."""


class Idleness:
    """Looks for work that waits, runs, or has not been taken in yet."""

    def __init__(self, family: Family, redis: Any, tracker: TaskTracker) -> None:
        self.family = family
        self.redis = redis
        self.tracker = tracker
        self.counts: dict[str, int] = {}

    async def wait(self) -> dict[str, int] | None:
        """Counts of tasks, once nothing is left to do; None when there is nobody to do it."""
        for child in self.family:
            await child.settled.wait()
        quiet_since_s, worked = monotonic_s(), False
        while any(child.state != "quarantined" for child in self.family.novas):
            try:
                self.counts = await self.tracker.counts()
                if self.counts["pending"] or self.counts["in_progress"]:
                    quiet_since_s, worked = monotonic_s(), True
                elif monotonic_s() - quiet_since_s >= (QUIET_S if worked else FIRST_WORK_S):
                    if not await self._unread():
                        return self.counts
                    quiet_since_s, worked = monotonic_s(), True
            except (RedisError, OSError):
                quiet_since_s = monotonic_s()  # the store is away: nothing is known
                await asyncio.sleep(AWAY_S)
                continue
            await asyncio.sleep(LOOK_S)
        return None

    async def _unread(self) -> int:
        """Entries of streams that will be work, and that the fleet's reader has yet to take in."""
        streams = self.family.get("streams")
        if streams is not None and streams.state == "quarantined":
            return 0  # nobody will
        novas = [child.spec.id for child in self.family.novas]
        return sum(stat.lag or 0 for stat in await stream_statistics(self.redis, novas))


async def ended_blocked(redis: Any, tracker: TaskTracker) -> int:
    """How many tasks are blocked, those that retention has put away included."""
    archived = await redis.hget(keys.TASK_COUNTS, "archived:blocked")
    return (await tracker.counts())["blocked"] + int(archived or 0)
