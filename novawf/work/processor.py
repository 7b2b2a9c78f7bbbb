"""One discovery: ask the discoverers, rank what they found, fill up, admit what is new.

It runs when a claim found nothing, never on the way of work, and the claim that follows takes what
was admitted like any other task. Admission is idempotent by the item's key, so Novas that look at
the same time admit a thing once. Telemetry and finding work fail open: a discoverer that raises or
hangs costs its own finds, is counted and named in the log, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from novawf.clock import Clock
from novawf.errors import NovawfError
from novawf.tasks.queue import TaskQueue
from novawf.work.item import WANTED, Discoverer, Look, WorkItem, ranked

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.work")

DISCOVERER_LIMIT_S = 0.5
"""A discoverer that takes longer is left out of this discovery."""

COMPLAIN_EVERY_MS = 600_000
"""A fault that stays is named so often in the log; each time it is counted."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one discovery came to."""

    items: tuple[WorkItem, ...]
    """All that was found, ranked, momentum included."""
    admitted: tuple[str, ...] = ()
    """Ids of the tasks that it put into the queue."""
    failed: tuple[str, ...] = ()
    """Discoverers that raised or took too long."""
    more: bool = False
    """Whether new work, momentum aside, was found: then there may be more of it."""


class WorkProcessor:
    """Finds work for one Nova."""

    def __init__(
        self,
        *,
        nova: str,
        redis: Redis,
        clock: Clock,
        queue: TaskQueue,
        discoverers: Sequence[Discoverer],
        filler: Discoverer | None,
        limit_s: float = DISCOVERER_LIMIT_S,
    ) -> None:
        """`filler` is asked when the others found too little; None: nothing fills up."""
        self.nova = nova
        self.redis = redis
        self.clock = clock
        self.queue = queue
        self.discoverers = tuple(discoverers)
        self.filler = filler
        self.limit_s = limit_s
        self.counts: Counter[str] = Counter()
        """`cycles`, `admitted:<source>` and `failed:<source>` since this process began."""
        self._complained_ms: dict[str, int] = {}

    async def discover(self) -> Discovery:
        """Look once. Raises nothing but cancellation."""
        self.counts["cycles"] += 1
        look = Look(self.redis, self.nova, self.clock.now_ms(), self.clock.wall_s())
        answers = await asyncio.gather(*(self._ask(one, look) for one in self.discoverers))
        failed = [
            one.name
            for one, answer in zip(self.discoverers, answers, strict=True)
            if answer is None
        ]
        items = ranked(item for answer in answers for item in answer or ())
        admitted = [item.key for item in items if item.new]
        self.counts.update(f"admitted:{item.source}" for item in items if item.new)
        admitted += await self._admit([item for item in items if item.spec is not None][:WANTED])
        more = bool(admitted)
        if len(items) < WANTED and self.filler is not None:
            fill = await self._ask(self.filler, look)
            if fill is None:
                failed.append(self.filler.name)
            found = {item.key for item in items}
            fill = [item for item in fill or () if item.key not in found][: WANTED - len(items)]
            admitted += await self._admit(fill)
            items = ranked([*items, *fill])
        return Discovery(tuple(items), tuple(admitted), tuple(failed), more)

    async def _ask(self, one: Discoverer, look: Look) -> Sequence[WorkItem] | None:
        """What it found; None when it failed."""
        try:
            async with asyncio.timeout(self.limit_s):
                return await one.discover(look)
        except TimeoutError:
            self._failed(one.name, f"no answer within {self.limit_s:g} s")
        except Exception as error:  # whatever is wrong with one, the others go on
            self._failed(one.name, f"{type(error).__name__}: {error}")
        return None

    async def _admit(self, items: Sequence[WorkItem]) -> list[str]:
        """Ids of those that were not in the queue before."""
        admitted = []
        for item in items:
            if item.spec is None:
                continue
            try:
                async with asyncio.timeout(self.limit_s):  # the key makes a repeat harmless
                    admission = await self.queue.admit(item.spec, item.key)
            except (NovawfError, RedisError, OSError) as error:
                why = str(error) or type(error).__name__
                self._failed(item.source, f"{item.title!r} was not admitted: {why}")
                continue
            if admission.created:
                self.counts[f"admitted:{item.source}"] += 1
                admitted.append(admission.task_id)
        return admitted

    def _failed(self, source: str, why: str) -> None:
        self.counts[f"failed:{source}"] += 1
        now_ms = self.clock.now_ms()
        last_ms = self._complained_ms.get(source)
        if last_ms is None or now_ms - last_ms >= COMPLAIN_EVERY_MS:
            self._complained_ms[source] = now_ms
            log.warning(
                "discovery by %s failed (%d times so far): %s",
                source, self.counts[f"failed:{source}"], why,
            )  # fmt: skip
