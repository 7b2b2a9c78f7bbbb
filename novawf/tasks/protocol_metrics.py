"""Carries what happened to tasks to `nova.enterprise.metrics`, about once a second (spec §4, §8).

The scripts count each change in the step that makes it (`keys.TASK_COUNTS`). Here the counters'
growth becomes records: `name`, `value`, `type`, `timestamp`, `nova_id`, `context`. Nothing is
counted twice or left out, however often, seldom or by how many processes this is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from novawf.clock import Clock, iso
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks.compliance import ComplianceCheck

if TYPE_CHECKING:
    from redis.asyncio import Redis

_COUNT_CHANGES = load_script("novawf.tasks", "count_changes")

CHECK_EVERY_MS: Final = 5_000
"""Between two rounds of the compliance check; at once when the last one left records over."""


class ProtocolMetrics:
    """The publisher; any number of them may run."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.compliance = ComplianceCheck(redis)
        self._check_at_ms = 0

    async def publish(self) -> int:
        """Post what changed, and check what is new on the task streams; how many records.

        Called once a second or so; raises redis' own errors, after which the next call makes up.
        """
        posted = await _COUNT_CHANGES(
            self.redis,
            (keys.TASK_COUNTS, keys.METRICS_SENT, keys.ENTERPRISE_METRICS),
            (iso(self.clock.wall_s()),),
        )
        now_ms = self.clock.now_ms()
        if now_ms >= self._check_at_ms:
            all_checked = await self.compliance.round()
            self._check_at_ms = now_ms + CHECK_EVERY_MS if all_checked else now_ms
        return int(posted)
