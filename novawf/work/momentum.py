"""Discoverer of momentum tasks: built-in jobs that are due, for a Nova without enough to do.

Time is cut into slots as long as a job's interval, and the slot is part of the request id: however
many Novas look, and however often they restart, a job is admitted once a slot. A job of the end of
a slot holds back that of the next one until the interval has passed, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from novawf.store import keys
from novawf.tasks.model import Priority, TaskSpec, WorkType
from novawf.work.item import Look, WorkItem
from novawf.work.jobs.table import BuiltInJob

NAME: Final = "momentum"

ESTIMATED_S: Final = 900.0
"""What a momentum task is estimated at (spec §6); in fact each takes less than a second."""


class Momentum:
    """Offers each job of `jobs` that has not been run in its interval: one round trip."""

    name = NAME

    def __init__(self, jobs: Iterable[BuiltInJob], every_s: float) -> None:
        """`every_s` is the shortest interval of any job; their own may be longer."""
        self.jobs = tuple(job for job in jobs if job.interval_s is not None)
        self.every_s = every_s

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        """See `Discoverer.discover`. In the order of the table; asks for two ids a job."""
        if not self.jobs:
            return []
        requests = []
        for job in self.jobs:
            slot = self._slot(job, look.now_ms)
            requests += [request_id(job, look.nova, slot), request_id(job, look.nova, slot - 1)]
        admitted = await look.client.hmget(keys.TASK_REQUESTS, requests)
        items = []
        for index, job in enumerate(self.jobs):
            this, last = admitted[2 * index : 2 * index + 2]
            if this is None and not self._is_recent(job, last, look.wall_s):
                items.append(self._item(job, requests[2 * index], look))
        return items

    def _interval_s(self, job: BuiltInJob) -> float:
        return max(self.every_s, job.interval_s or 0.0)

    def _slot(self, job: BuiltInJob, now_ms: int) -> int:
        return now_ms // round(self._interval_s(job) * 1000)

    def _is_recent(self, job: BuiltInJob, task_id: str | None, wall_s: float) -> bool:
        """Whether that task was admitted within the interval. A wall clock that was set back
        makes nothing recent: then the slot alone decides."""
        if task_id is None:
            return False
        return 0 <= wall_s - created_s(task_id) < self._interval_s(job)

    def _item(self, job: BuiltInJob, request: str, look: Look) -> WorkItem:
        spec = TaskSpec(
            title=job.title,
            description=job.about,
            job=job.name,
            priority=Priority.LOW,
            nova=look.nova if job.per_nova else None,
            work_type=WorkType.MOMENTUM,
            estimated_s=ESTIMATED_S,
            retries=0,
        )
        return WorkItem(request, job.title, Priority.LOW, look.now_ms, self.name, spec)


def request_id(job: BuiltInJob, nova: str, slot: int) -> str:
    """What a job's task of one slot is admitted under."""
    whose = f"{job.name}:{nova}" if job.per_nova else job.name
    return f"momentum:{whose}:{slot}"


def created_s(task_id: str) -> int:
    """Unix seconds at which a task was admitted, from its id; 0 for an id that is not ours."""
    parts = task_id.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0
