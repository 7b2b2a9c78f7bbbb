"""Cron schedules: tasks that come again and again, each due time at most once.

One record a schedule, in one hash, changed only by compare-and-set. A run is two steps: the task is
admitted under a request id made of the schedule's name and the due time, then the record moves on.
Whatever dies between them, and whoever else does the same at once, the queue finds the task that is
there. `resume` (pure) decides what comes next from what happened.

Due times are wall times, for cron speaks of the wall clock, and that may jump:

* Forward, or nobody was there to run: what was missed becomes one run, the catch-up; then it goes
  on from now.
* Back: a record that lies further ahead than the next due time moves back to it, so that a clock
  which was wrong once does not silence a schedule. Due times that had their task find it again.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from novawf.clock import iso, parse_iso
from novawf.errors import CorruptState, InvalidSchedule, NotFound, NovawfError, Refused
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks.model import TaskSpec, WorkType
from novawf.tasks.queue import TaskQueue
from novawf.tasks.state import unpack

log = logging.getLogger("novawf.tasks")

_PUT = load_script("novawf.tasks", "schedule_put")

Overlap = Literal["skip", "queue"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
FORBIDDEN = ("at", "deadline", "after", "dedupe", "work_type")
"""Fields of a task that belong to one run alone, or would stop all runs but the first."""

MAX_SCHEDULES = 1000
COUNTED = 1000
"""Missed runs of one gap are counted so far."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule as kept. Times are unix seconds."""

    name: str
    cron: str
    tz: str
    overlap: Overlap
    task: dict[str, Any]
    created_at: float
    next_at: int | None
    """When it is due next; None: never again."""

    last_at: int | None = None
    """The due time that last made a task."""

    last_task_id: str | None = None
    runs: int = 0
    missed: int = 0
    """Due times that passed while nobody was there; each gap made one run all the same."""

    skipped: int = 0
    """Due times without a task, since the one before had not ended."""

    last_error: str | None = None
    """Why the last due time made no task."""

    def packed(self) -> str:
        """As the store keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True)

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it: times in ISO 8601."""
        moments = {
            "created_at": self.created_at,
            "next_at": self.next_at,
            "last_at": self.last_at,
        }
        times = {name: None if at is None else iso(at) for name, at in moments.items()}
        return asdict(self) | times


class Run(NamedTuple):
    """A due time that made a task."""

    schedule: str
    due_s: int
    task_id: str


class Ran(NamedTuple):
    """What one look at the schedules did, and when the next one is due (unix s)."""

    runs: tuple[Run, ...]
    next_at: int | None


class _Kept(NamedTuple):
    """A schedule and the very text it was read from, which the next write must still find."""

    schedule: Schedule
    packed: str


class Scheduler:
    """Keeps schedules, and makes tasks of those that are due."""

    def __init__(self, queue: TaskQueue, reread_s: float = 5.0) -> None:
        self.queue = queue
        self.redis: Any = queue.redis
        self.reread_s = reread_s
        self._complained: set[str] = set()
        self._look: tuple[int, int | None] | None = None

    async def add(
        self,
        name: str,
        cron: str,
        task: TaskSpec,
        *,
        tz: str = "UTC",
        overlap: Overlap = "skip",
        replace_it: bool = False,
    ) -> Schedule:
        """Keep a schedule; one that is there in the same words stays as it is.

        Raises InvalidSchedule, or Refused when one of that name says something else, unless
        `replace_it`: then that one's counts and due time go with it.
        """
        made = new_schedule(name, cron, task, tz, overlap, self.queue.clock.wall_s())
        while True:
            packed = await self.redis.hget(keys.SCHEDULES, name)
            if packed is None and await self.redis.hlen(keys.SCHEDULES) >= MAX_SCHEDULES:
                raise Refused(f"there are {MAX_SCHEDULES:,} schedules already: remove some")
            if packed is not None and not replace_it:
                there = _unpack(name, packed)
                if _definition(there) == _definition(made):
                    return there
                raise Refused(
                    f"there is a schedule {name} already, and it says something else: "
                    "remove it first, or replace it"
                )
            if await self._put(name, packed or "", made.packed()):
                return made

    async def remove(self, name: str) -> None:
        """Forget a schedule; its tasks stay. Raises NotFound."""
        if not await self.redis.hdel(keys.SCHEDULES, name):
            raise NotFound(f"there is no schedule {name}")

    async def schedules(self) -> list[Schedule]:
        """All of them, by name."""
        return [kept.schedule for kept in await self._read()]

    async def run_due(self) -> Ran:
        """Make a task of every schedule that is due. A repeat, or another runner, adds nothing.

        Meant to be called every second: the store is asked when something is due, and every
        `reread_s`. Raises redis' errors; what is wrong with one schedule is kept with it.
        """
        clock = self.queue.clock
        now_ms = clock.now_ms()
        if self._look is not None:
            until_ms, next_at = self._look
            if now_ms < until_ms and (next_at is None or clock.wall_s() < next_at):
                return Ran((), next_at)
        self._look = None
        runs: list[Run] = []
        upcoming: list[int] = []
        for kept in await self._read():
            now_s = clock.wall_s()
            was, now = kept.schedule, _not_too_far_ahead(kept.schedule, now_s)
            if now.next_at is not None and now.next_at <= now_s:
                now, run = await self._run(now, now_s)
                runs += [run] if run else []
            if now != was:
                await self._put(was.name, kept.packed, now.packed())  # or another was faster
            if now.next_at is not None:
                upcoming.append(now.next_at)
        ran = Ran(tuple(runs), min(upcoming, default=None))
        self._look = (now_ms + int(self.reread_s * 1000), ran.next_at)
        return ran

    async def _run(self, schedule: Schedule, now_s: float) -> tuple[Schedule, Run | None]:
        """See to the due time; what the record is then, and the run if this call made one."""
        due_s = schedule.next_at or 0
        request_id = f"schedule:{schedule.name}:{due_s}"
        try:
            there = await self.redis.hget(keys.TASK_REQUESTS, request_id)
            if there is None:
                spec = _spec(schedule, due_s)
                await self._check_target(spec.nova)
                if schedule.overlap == "skip" and await self._is_open(schedule.last_task_id):
                    return resume(schedule, now_s, skipped=True), None
                there, created = await self.queue.admit(spec, request_id)
                if created:
                    run = Run(schedule.name, due_s, there)
                    return resume(schedule, now_s, task_id=there), run
            # Admitted by one who died before the record moved on, or who is at it just now: both
            # go on from when that was, so that one gap has one catch-up.
            admitted_s = await self._created_s(there)
            return resume(schedule, now_s, task_id=there, admitted_s=admitted_s), None
        except NovawfError as error:  # of this schedule alone: the others go on
            log.error("schedule %s: %s", schedule.name, error)
            return resume(schedule, now_s, error=str(error)), None

    async def _is_open(self, task_id: str | None) -> bool:
        """Whether a task is still to be done. One that left the store has ended."""
        packed = await self.redis.hget(keys.TASK_STATE, task_id) if task_id else None
        if packed is None:
            return False
        state = unpack(task_id or "", packed)
        return state.status in ("pending", "in_progress") or state.outcome == "awaiting_approval"

    async def _created_s(self, task_id: str) -> float | None:
        packed = await self.redis.hget(keys.TASK_STATE, task_id)
        return None if packed is None else parse_iso(unpack(task_id, packed).created)

    async def _check_target(self, nova: str | None) -> None:
        """Refuse a Nova that the fleet does not have; before its first start any name will do."""
        if nova is None:
            return
        known = {
            *await self.redis.hkeys(keys.NOVAS),
            *await self.redis.hkeys(keys.CHILDREN),
        }
        if known and nova not in known:
            raise NotFound(f"there is no Nova {nova}")

    async def _put(self, name: str, before: str, after: str) -> bool:
        return bool(await _PUT(self.redis, (keys.SCHEDULES,), (name, before, after)))

    async def _read(self) -> list[_Kept]:
        """All that can be read; one that cannot harms no other."""
        found = []
        for name, packed in sorted((await self.redis.hgetall(keys.SCHEDULES)).items()):
            try:
                found.append(_Kept(_unpack(name, packed), packed))
            except CorruptState as error:
                if name not in self._complained:
                    self._complained.add(name)
                    log.error("%s; it is left as it is", error)
        return found


def new_schedule(
    name: str, cron: str, task: TaskSpec, tz: str, overlap: Overlap, now_s: float
) -> Schedule:
    """A schedule that begins now. Raises InvalidSchedule naming what is wrong."""
    if NAME.fullmatch(name) is None:
        raise InvalidSchedule(
            "name", f"{name[:80]!r} is none: letters, digits, _ . and -, up to 64"
        )
    if overlap not in ("skip", "queue"):
        raise InvalidSchedule("overlap", f"{overlap!r} is neither skip nor queue")
    for field in FORBIDDEN:
        if field in task.model_fields_set and getattr(task, field):
            raise InvalidSchedule(field, "belongs to one task, not to one that comes again")
    cron = " ".join(cron.split())
    first_s = next_due(cron, tz, now_s)
    if first_s is None:
        raise InvalidSchedule("cron", f"{cron!r} never comes")
    fields = json.loads(task.to_json())
    return Schedule(name, cron, tz, overlap, fields, now_s, first_s)


def resume(
    schedule: Schedule,
    now_s: float,
    *,
    task_id: str | None = None,
    admitted_s: float | None = None,
    skipped: bool = False,
    error: str | None = None,
) -> Schedule:
    """What a schedule is after its due time was seen to; pure.

    Everything due until now, or until the due time's task was admitted where that was earlier, was
    seen to by it. So a gap has one catch-up, also when the runner died in the middle of it.
    """
    due_s = schedule.next_at or 0
    seen_s = now_s if admitted_s is None else min(now_s, max(float(due_s), admitted_s))
    changes: dict[str, Any] = {
        "next_at": next_due(schedule.cron, schedule.tz, seen_s),
        "missed": schedule.missed + _due_between(schedule, due_s, seen_s),
        "last_error": error,
    }
    if skipped:
        changes["skipped"] = schedule.skipped + 1
        changes["last_error"] = f"its task {schedule.last_task_id} has not ended"
    if task_id is not None and task_id != schedule.last_task_id:
        changes |= {"last_at": due_s, "last_task_id": task_id, "runs": schedule.runs + 1}
    return replace(schedule, **changes)


def next_due(cron: str, tz: str, after_s: float) -> int | None:
    """The first due time after a moment, in unix seconds; None when there is none for 50 years.

    Raises InvalidSchedule for an expression or a zone that is none.
    """
    for moment in _due_times(cron, tz, after_s):
        due_s = int(moment.timestamp())
        if due_s > after_s:  # in the hour that comes twice, cronsim answers with the first one
            return due_s
    return None


def _due_times(cron: str, tz: str, after_s: float) -> CronSim:
    zone = _zone(tz)
    if len(cron) > 200:
        raise InvalidSchedule("cron", "is longer than 200 characters")
    try:
        return CronSim(cron, datetime.fromtimestamp(after_s, zone))
    except (CronSimError, AssertionError, ValueError) as error:
        raise InvalidSchedule(
            "cron", f"{cron!r} is no cron expression, such as '0 3 * * *': {error}"
        ) from None


def _due_between(schedule: Schedule, due_s: int, until_s: float) -> int:
    """Due times after `due_s` until `until_s`, at most COUNTED."""
    count = 0
    for moment in islice(_due_times(schedule.cron, schedule.tz, due_s), COUNTED):
        if moment.timestamp() > until_s:
            break
        count += 1
    return count


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC  # also where there is no time zone database
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not found; no such path; a directory
        raise InvalidSchedule(
            "tz", f"{name[:80]!r} is no time zone that this machine knows, such as Europe/Berlin"
        ) from None


def _not_too_far_ahead(schedule: Schedule, now_s: float) -> Schedule:
    """After the clock went back: the due time that comes next by the present clock."""
    expected = next_due(schedule.cron, schedule.tz, now_s)
    if schedule.next_at is None or expected is None or schedule.next_at <= expected:
        return schedule
    return replace(schedule, next_at=expected)


def _spec(schedule: Schedule, due_s: int) -> TaskSpec:
    """The task of one due time. Raises InvalidTask: the model may have changed since."""
    metadata = {
        **schedule.task.get("metadata", {}),
        "schedule": schedule.name,
        "due_at": iso(due_s),
    }
    work_type = WorkType.SCHEDULE.value
    return TaskSpec.parse({**schedule.task, "work_type": work_type, "metadata": metadata})


def _definition(schedule: Schedule) -> tuple[Any, ...]:
    return schedule.cron, schedule.tz, schedule.overlap, schedule.task


def _unpack(name: str, packed: str) -> Schedule:
    try:
        schedule = Schedule(**json.loads(packed))
        _due_times(schedule.cron, schedule.tz, schedule.next_at or schedule.created_at)
    except (ValueError, TypeError, InvalidSchedule) as error:
        raise CorruptState(f"schedule {name} cannot be read: {error}") from None
    return schedule
