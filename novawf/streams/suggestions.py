"""Low and background signals wait here, and become tasks when their delay has passed and somebody
is idle (architecture §5).

One script each keeps and forgets a suggestion. Becoming a task is two steps, admit and forget: a
crash in between leaves a suggestion whose task is found by its identity when it is tried again.
What says nothing of what to run stays a suggestion for people to read, unless there is a default
executor. Their number is bounded: of more the oldest are dropped, and counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from novawf.clock import Clock, iso
from novawf.errors import CorruptState, InvalidSignal, InvalidTask
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.streams.signals import Signal, has_work
from novawf.streams.wake_config import WakeSettings
from novawf.streams.wake_signals import Classification
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.streams")

_SUGGEST = load_script("novawf.streams", "suggest")
_FORGET = load_script("novawf.streams", "suggestion_forget")

MAX_BYTES = 16_384
"""Largest suggestion as JSON: a thousand of them stay under 16 MB."""

_PAGE = 100


class _Member(NamedTuple):
    """What the set knows of a suggestion, so that looking for due ones reads no texts."""

    tier: str
    kind: str
    """`work`: it says what to run; `text`: it does not; `refused`: the queue did not take it."""
    nova: str
    identity: str

    def packed(self) -> str:
        return "|".join(self)


class Suggestions:
    """Keeps and promotes suggestions."""

    def __init__(self, queue: TaskQueue, settings: WakeSettings, load: Callable[[], float]) -> None:
        self.queue = queue
        self.redis: Any = queue.redis
        self.settings = settings
        self.load = load
        self._delays_ms = {
            tier: int(getattr(settings.delays, f"{tier}_s") * 1000)
            for tier in ("low", "background")
        }

    async def keep(
        self,
        identity: str,
        spec: TaskSpec,
        signal: Signal,
        found: Classification,
        origin: dict[str, str],
    ) -> bool:
        """Keep a suggestion; False when it is there or was a task before. Raises InvalidSignal."""
        clock = self.queue.clock
        record = {
            "id": identity,
            "text": signal.text,
            "sender": signal.sender,
            "tier": found.tier,
            "delay_s": found.delay_s,
            "nova": spec.nova,
            "rule": found.summary(),
            **origin,
            "received_at": iso(clock.wall_s()),
            "task": json.loads(spec.to_json()),
        }
        if spec.description == signal.text:
            del record["text"]  # it is in the task
        packed = json.dumps(record, ensure_ascii=False)
        size = len(packed.encode(errors="surrogatepass"))
        if size > MAX_BYTES:
            raise InvalidSignal(
                "message",
                f"is {size:,} bytes with its work; {found.tier} signals are kept up to "
                f"{MAX_BYTES:,}: give it a higher priority",
            )
        member = _Member(
            found.tier, "work" if has_work(spec) else "text", spec.nova or "", identity
        )
        kept = await _SUGGEST(
            self.redis,
            (keys.SUGGESTIONS, keys.SUGGESTION_TEXT, keys.TASK_REQUESTS, keys.SIGNAL_COUNTS),
            (
                clock.now_ms(), identity, member.packed(), packed, self.settings.suggestions_kept,
                count_field(found.tier, "suggestion"), count_field("any", "dropped"),
            ),
        )  # fmt: skip
        return bool(kept)

    async def promote_due(self) -> list[str]:
        """Make one due suggestion work for each Nova that is idle and one for the idle fleet.

        Returns the tasks' ids. Nothing happens while the load is above `[wake] load_above`.
        """
        promoted: list[str] = []
        done: set[str] = set()  # targets that got one, or are busy
        start, now_ms = 0, self.queue.clock.now_ms()
        newest_ms = now_ms - min(self._delays_ms.values())
        while "" not in done:  # "" is for any Nova: if none is idle, no other one is either
            page = await self.redis.zrangebyscore(
                keys.SUGGESTIONS, "-inf", newest_ms, start=start, num=_PAGE, withscores=True
            )
            if not page or (start == 0 and self.load() > self.settings.load_above):
                break
            start += len(page)
            for packed, arrived_ms in page:
                member = _member(packed)
                if member.nova in done or not self._may_start(member, int(arrived_ms), now_ms):
                    continue
                done.add(member.nova)
                if await self._idle(member.nova):
                    promoted += await self._promote(member)
        return promoted

    def _may_start(self, member: _Member, arrived_ms: int, now_ms: int) -> bool:
        if arrived_ms + self._delays_ms[member.tier] > now_ms:
            return False
        has_default = self.queue.settings.default_executor is not None
        return member.kind == "work" or (member.kind == "text" and has_default)

    async def _idle(self, nova: str) -> bool:
        """Whether nothing waits and that Nova (or '': some Nova) has nothing in hand."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.zcard(keys.READY)
            pipe.zrangebylex(keys.PINNED, f"[{nova}|" if nova else "-", f"[{nova}|~", 0, 1)
            if nova:
                pipe.hmget(keys.NOVAS, [nova])
            else:
                pipe.hvals(keys.NOVAS)
            ready, pinned, beats = await pipe.execute()
        if ready or (nova and pinned):
            return False
        return any(not json.loads(beat).get("task") for beat in beats if beat)

    async def _promote(self, member: _Member) -> list[str]:
        packed = await self.redis.hget(keys.SUGGESTION_TEXT, member.identity)
        if packed is None:  # cannot be: both are written by one script
            await self.redis.zrem(keys.SUGGESTIONS, member.packed())
            return []
        record = json.loads(packed)
        try:
            admission = await self.queue.admit(TaskSpec.parse(record["task"]), member.identity)
        except InvalidTask as error:
            await self._refused(member, record, str(error))
            return []
        await _FORGET(
            self.redis,
            (keys.SUGGESTIONS, keys.SUGGESTION_TEXT, keys.SIGNAL_COUNTS),
            (member.identity, member.packed(), count_field(member.tier, "promoted")),
        )
        return [admission.task_id]

    async def _refused(self, member: _Member, record: dict[str, Any], error: str) -> None:
        """It stays for people to read, with the reason, and is not tried again."""
        log.warning("suggestion %s cannot be a task: %s", member.identity, error)
        arrived_ms = await self.redis.zscore(keys.SUGGESTIONS, member.packed())
        if arrived_ms is None:
            return
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.zrem(keys.SUGGESTIONS, member.packed())
            pipe.zadd(keys.SUGGESTIONS, {member._replace(kind="refused").packed(): arrived_ms})
            pipe.hset(keys.SUGGESTION_TEXT, member.identity, json.dumps({**record, "error": error}))
            await pipe.execute()


async def suggestions(redis: Redis, clock: Clock) -> list[dict[str, Any]]:
    """All suggestions, the oldest first. Times are ISO 8601; `due_at`: may be work from then on."""
    client: Any = redis
    skew_s = clock.wall_s() - clock.now_ms() / 1000
    found: list[dict[str, Any]] = []
    scored = await client.zrange(keys.SUGGESTIONS, 0, -1, withscores=True)
    for start in range(0, len(scored), _PAGE):
        page = [(_member(packed), score) for packed, score in scored[start : start + _PAGE]]
        names = [member.identity for member, _ in page]
        texts = await client.hmget(keys.SUGGESTION_TEXT, names)
        for (member, arrived_ms), packed in zip(page, texts, strict=True):
            if packed is None:
                continue
            row = json.loads(packed)
            task, delay_s = row.pop("task"), row.pop("delay_s")
            row["text"] = row.get("text") or task["description"]
            row["due_at"] = iso(arrived_ms / 1000 + delay_s + skew_s)
            row["has_work"] = member.kind == "work"
            row["error"] = row.get("error")
            found.append(row)
    return found


def count_field(tier: str, disposition: str) -> str:
    """The field of the signals' counts: `signal:low:suggestion`."""
    return f"signal:{tier}:{disposition}"


def _member(packed: str) -> _Member:
    parts = packed.split("|", 3)
    if len(parts) != len(_Member._fields) or parts[0] not in ("low", "background"):
        raise CorruptState(f"{keys.SUGGESTIONS}: {packed[:200]!r} is no suggestion")
    return _Member(*parts)
