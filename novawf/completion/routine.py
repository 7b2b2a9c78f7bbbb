"""The completion routine at work: celebration, reflection and transition planning, written down.

Work never waits for it. A completed task is noted in memory, which costs nothing worth measuring;
twice a second at most what was noted goes to the store in one call, in the background. The truth
about what is still to be celebrated is not that memory but the store: the stream of this Nova's
completed tasks, after a marker that moves with the records (`scripts/record.lua`). So whenever
there is a doubt (a new life, a lost reply, an unexpected marker), what was noted is dropped and the
routine catches up from the stream: each completed task is celebrated once, by whichever life.

The records are telemetry and fail open: a store that is away is tried again later, a part that
fails is left out, and no error leaves this module. Rests are the cycle's business (`pause.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from redis.exceptions import RedisError

from novawf.clock import Clock, iso
from novawf.completion import records
from novawf.completion.celebration import celebrate, celebrate_burst
from novawf.completion.config import CompletionSettings
from novawf.completion.consolidation import consolidate
from novawf.completion.evidence import Evidence, from_hand, from_store, with_errors
from novawf.completion.records import Record, Recorder
from novawf.completion.reflection import reflect, reflects
from novawf.completion.transition import Upcoming, plan
from novawf.errors import Fenced
from novawf.executors.base import Outcome
from novawf.store import keys
from novawf.tasks.claims import Claim

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.personality.profiles import Profile

log = logging.getLogger("novawf.completion")

FLUSH_S = 0.5
"""What is completed within this time shares one call to the store."""

AGAIN_S = 5.0
"""Pause before a call that failed is made again."""

DETAILED = 16
"""Tasks of one call that get records of their own, unless all shall."""

PAGE = 500
"""Entries of a stream that are read at once."""

WAITING = 64
"""Full batches, and hundreds of tasks, that may wait for a call that takes long; more are dropped
from memory and read back from the stream."""

WORTHWHILE = 10
"""Insights that are worth drawing together in a personal phase that left no time."""

_T = TypeVar("_T")
EndedBy = Literal["time", "work", "drain"]


@dataclass(slots=True)
class _Batch:
    """Tasks completed one after the other, up to `last`."""

    detailed: list[Evidence] = field(default_factory=list)
    more: int = 0
    """How many came after the detailed ones."""
    first_more: str = ""
    last: str = ""


@dataclass(slots=True)
class _Personal:
    """A personal phase that is over, until its record is written."""

    rested_s: float
    ended_by: EndedBy
    expected: str | None = None
    """The marker before the first try."""


class CompletionRoutine:
    """Notes completed tasks of one life of one Nova, and sees to their records."""

    def __init__(
        self,
        *,
        redis: Redis,
        clock: Clock,
        nova: str,
        nova_epoch: int,
        profile: Profile,
        settings: CompletionSettings,
        upcoming: Callable[[], Upcoming],
    ) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.nova = nova
        self.profile = profile
        self.settings = settings
        self.upcoming = upcoming
        self.recorder = Recorder(redis, nova, nova_epoch)
        self._each = settings.records == "all"
        self._off = settings.records == "off"
        self._behind = True
        """Whether the stream knows of completed tasks that neither memory nor marker cover."""
        self._marker = ""
        self._covered = ""
        """The newest task read from the stream: its end may be noted only after that."""
        self._batches: deque[_Batch] = deque()
        self._held: list[tuple[Claim, Outcome]] | None = None
        """What is noted while the stream is being read; None when it is not."""
        self._overflow = False
        self._personal: _Personal | None = None
        self._failing = False
        self._lock = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    # -- what the cycle tells -------------------------------------------------------------------

    def begin(self) -> None:
        """Celebrate, in the background, what the life before this one did not."""
        if not self._off and self._timer is None:
            self._arm(0.0)

    def completed(self, claim: Claim, outcome: Outcome) -> None:
        """A task was completed, and the store has confirmed it."""
        if self._off:
            return
        if not self._behind:
            if claim.task_id != self._covered:
                self._note(claim, outcome)
        elif self._held is not None:
            if len(self._held) < WAITING * 100:
                self._held.append((claim, outcome))
            else:
                self._overflow = True
        if self._timer is None:
            self._arm(FLUSH_S)

    def doubt(self) -> None:
        """Something may have been completed without being noted: look into the stream."""
        self._fall_behind()
        if not self._off and self._timer is None:
            self._arm(FLUSH_S)

    def personal_phase_over(self, rested_s: float, ended_by: EndedBy) -> None:
        """A personal phase ended: draw the insights since the last one together."""
        if self._off:
            return
        self._personal = _Personal(rested_s, ended_by)
        if self._timer is None:
            self._arm(FLUSH_S)

    def reflects_on(self, task_id: str) -> bool:
        """Whether this completed task is one of those that the Nova reflects on."""
        return reflects(self.nova, task_id, self.profile.reflection_share)

    async def close(self, limit_s: float) -> None:
        """Write what is noted, within `limit_s`; what is not written then, the next life finds."""
        self._disarm()
        try:
            async with asyncio.timeout(limit_s):
                await self.flush()
        except TimeoutError:
            log.warning("%s: the last celebrations are left to the next life", self.nova)

    async def stop(self) -> None:
        """End at once. What is noted is forgotten here; the stream still has it."""
        self._off = True
        self._disarm()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    async def flush(self) -> bool:
        """Write what is noted. False when some of it must wait for another try; never raises."""
        async with self._lock:
            try:
                if not self._off:
                    await self._flush()
            except Fenced as fenced:
                log.info("%s; it celebrates no more", fenced)
                self._off = True
            except Exception as error:
                self._fall_behind()
                expected = isinstance(error, RedisError | OSError)
                if not self._failing or not expected:
                    log.warning("completion routine: %s; again later", error, exc_info=not expected)
                self._failing = True
                return False
        self._failing = False
        return True

    # -- memory ---------------------------------------------------------------------------------

    def _note(self, claim: Claim, outcome: Outcome) -> None:
        batches = self._batches
        if not batches or (self._each and len(batches[-1].detailed) >= DETAILED):
            if len(batches) >= WAITING:
                self._fall_behind()
                return
            batches.append(_Batch())
        batch = batches[-1]
        batch.last = claim.task_id
        if len(batch.detailed) < DETAILED:
            at = iso(self.clock.wall_s())
            batch.detailed.append(from_hand(claim, outcome, self.clock.now_ms(), at))
        else:
            batch.first_more = batch.first_more or claim.task_id
            batch.more += 1

    def _fall_behind(self) -> None:
        self._behind = True
        self._batches.clear()
        self._held = None

    # -- the background -------------------------------------------------------------------------

    def _arm(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin_flush)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_flush(self) -> None:
        self._timer = None
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._flush_and_look())
        else:
            self._arm(FLUSH_S)

    async def _flush_and_look(self) -> None:
        done = await self.flush()
        left = not done or self._behind or self._batches or self._personal
        if left and not self._off and self._timer is None:
            self._arm(FLUSH_S if done else AGAIN_S)

    async def _flush(self) -> None:
        if self._behind:
            await self._catch_up()
        for left in range(len(self._batches) - 1, -1, -1):  # not those noted meanwhile: they share
            if not self._batches:
                break  # dropped meanwhile: there was a doubt
            batch = self._batches.popleft()
            entries = await self._records_of(batch, last=left == 0)
            written = await self.recorder.write(
                self.nova, self._marker, entries, task_id=batch.last
            )
            self._complain(written.error)
            if not written.written:
                self._fall_behind()
                await self._catch_up()
                break
            self._marker = written.marker or ""
        if self._personal is not None:
            await self._consolidate(self._personal)

    async def _catch_up(self) -> None:
        """Go through the completed stream from the marker on; afterwards memory may be trusted."""
        page = DETAILED if self._each else PAGE
        marker = await self.redis.hget(keys.COMPLETION, self.nova) or ""
        newest = self._covered
        while True:
            self._held, self._overflow = [], False
            stream = keys.completed(self.nova)
            entries = await self.redis.xrange(stream, _after(marker), "+", count=page)
            last = len(entries) < page
            done = [fields for _, fields in entries if _tells_of_completion(fields)]
            if entries:
                batch = await self._read_back(done)
                newest = batch.last or newest
                written = await self.recorder.write(
                    self.nova,
                    marker,
                    await self._records_of(batch, last=last),
                    marker=entries[-1][0],
                )
                self._complain(written.error)
                marker = written.marker or ""
                if not written.written:
                    continue
            if last and self._held is not None and not self._overflow:
                break
        seen = {fields["task_id"] for fields in done} | {newest}
        held, self._held = self._held, None
        self._marker, self._covered, self._behind = marker, newest, False
        for claim, outcome in held:
            if claim.task_id not in seen:
                self._note(claim, outcome)

    async def _read_back(self, done: Sequence[Mapping[str, str]]) -> _Batch:
        """What the store knows of tasks in its completed stream."""
        if not done:
            return _Batch()
        batch = _Batch(last=done[-1]["task_id"])
        detailed, others = done[:DETAILED], done[DETAILED:]
        task_ids = [fields["task_id"] for fields in detailed]
        async with self.redis.pipeline(transaction=False) as pipe:
            for key in (keys.TASK_STATE, keys.TASK_SPEC, keys.TASK_RESULT):
                pipe.hmget(key, task_ids)
            known = await pipe.execute()
        batch.detailed = [from_store(*parts) for parts in zip(detailed, *known, strict=True)]
        batch.more = len(others)
        batch.first_more = others[0]["task_id"] if others else ""
        return batch

    async def _records_of(self, batch: _Batch, *, last: bool) -> list[Record]:
        """The records of a batch; a part that fails is left out, the others are written."""
        if not batch.last:
            return []
        style = self.profile.celebration
        made = [self._part(lambda e: records.celebrated(e, celebrate(e, style)), batch.detailed)]
        if batch.more:
            made.append(self._part(self._burst, [batch]))
        chosen = [evidence for evidence in batch.detailed if self.reflects_on(evidence.task_id)]
        chosen = await self._with_errors(chosen)
        made.append(self._part(lambda e: records.reflected(e, reflect(e)), chosen))
        if last:
            made.append(self._part(self._plan, [batch.last]))
        return [record for part in made for record in part]

    def _part(self, make: Callable[[_T], Record], things: Sequence[_T]) -> list[Record]:
        made = []
        for thing in things:
            try:
                made.append(make(thing))
            except Exception:
                log.exception("completion routine: a part failed and is left out")
        return made

    def _burst(self, batch: _Batch) -> Record:
        celebration = celebrate_burst(batch.more, self.profile.celebration)
        return records.celebrated_burst(
            batch.more, batch.first_more, batch.last, celebration, self._now()
        )

    def _plan(self, after: str) -> Record:
        upcoming = self.upcoming()
        return records.planned(after, plan(upcoming, self.clock.now_ms()), upcoming, self._now())

    async def _with_errors(self, chosen: Sequence[Evidence]) -> list[Evidence]:
        """What made the earlier attempts fail is in the tasks' histories."""
        asked = [e.task_id for e in chosen if e.attempts > 1 and not e.errors]
        if not asked:
            return list(chosen)
        packed = dict(zip(asked, await self.redis.hmget(keys.TASK_STATE, asked), strict=True))
        return [with_errors(e, packed.get(e.task_id)) for e in chosen]

    async def _consolidate(self, personal: _Personal) -> None:
        """Draw the insights together; the marker is the newest one covered, and a count."""
        marker_field = f"personal:{self.nova}"
        marker = await self.redis.hget(keys.COMPLETION, marker_field) or ""
        if personal.expected is not None and marker != personal.expected:
            self._personal = None  # it was written, and the reply was lost
            return
        personal.expected = marker
        newest, _, count = marker.partition("/")
        entries = await self.redis.xrange(keys.insights(self.nova), _after(newest), "+", count=PAGE)
        summary = consolidate(fields for _, fields in entries)
        if personal.rested_s > 0 or summary.reflections >= WORTHWHILE:
            newest = entries[-1][0] if entries else newest
            made = records.summarised(summary, self._now(), personal.rested_s, personal.ended_by)
            written = await self.recorder.write(
                marker_field, marker, [made], marker=f"{newest}/{int(count or 0) + 1}"
            )
            self._complain(written.error)
        if self._personal is personal:
            self._personal = None

    def _complain(self, error: str) -> None:
        if error:
            log.warning("completion routine: a record could not be written: %s", error)

    def _now(self) -> str:
        return iso(self.clock.wall_s())


def _tells_of_completion(fields: Mapping[str, str]) -> bool:
    return fields.get("status") == "completed" and "task_id" in fields


def _after(entry_id: str) -> str:
    """The smallest stream id after this one; the smallest of all after none."""
    if not entry_id:
        return "-"
    ms, _, sequence = entry_id.partition("-")
    return f"{ms}-{int(sequence) + 1}"
