"""Discoverer of priority work: what the queue holds for this Nova already, now or soon.

There is nothing to admit. It is counted, so that a Nova which is about to get work is given no
momentum, and it ranks in front by its tier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from novawf.errors import CorruptState
from novawf.store import keys
from novawf.tasks.model import TIER_MS, Priority
from novawf.tasks.state import unpack
from novawf.work.item import Look, WorkItem

NAME: Final = "priority"

READ_AHEAD: Final = 5
"""Entries read from each of the three places where tasks wait."""

SOON_MS: Final = 900_000
"""A delayed task counts when it is due within the time that a momentum task is estimated at."""

_TIERS: Final = {ms: Priority(name) for name, ms in TIER_MS.items()}


class PriorityWork:
    """Reads the heads of the ready, pinned and delayed sets: two round trips."""

    name = NAME

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        """See `Discoverer.discover`."""
        redis = look.client
        async with redis.pipeline(transaction=False) as pipe:
            pipe.zrange(keys.READY, 0, READ_AHEAD - 1)
            pipe.zrangebylex(keys.PINNED, f"[{look.nova}|", f"({look.nova}}}", 0, READ_AHEAD)
            pipe.zrangebyscore(keys.DELAYED, "-inf", look.now_ms + SOON_MS, 0, READ_AHEAD)
            ready, pinned, delayed = await pipe.execute()
        task_ids = [*ready, *(member.split("|", 2)[2] for member in pinned), *delayed]
        if not task_ids:
            return []
        states = await redis.hmget(keys.TASK_STATE, task_ids)
        items = []
        for task_id, packed in zip(task_ids, states, strict=True):
            item = self._item(look, task_id, packed)
            if item is not None:
                items.append(item)
        return items

    def _item(self, look: Look, task_id: str, packed: str | None) -> WorkItem | None:
        """None for what is gone, in hand, aimed at another, or cannot be read: not ours to mend."""
        if packed is None:
            return None
        try:
            state = unpack(task_id, packed)
        except CorruptState:
            return None
        if state.status != "pending" or state.target not in ("", look.nova):
            return None
        priority = _TIERS.get(state.tier_ms, Priority.MEDIUM)
        # Its title is part of a specification of up to a megabyte: the id tells enough.
        return WorkItem(task_id, task_id, priority, state.ready_ms, self.name)
