"""Stream monitor: the store is in reach and has room, and the streams are being read (spec §5.5).

Reading the store is tried by the look itself; writing by the orchestrator's own renewal of the
gate, which is the one write that safety rests on: a probe beside it would prove less. Of the
streams those are looked at that everybody shares. Poison entries are a caution, never a reason to
hold work: they block nothing (spec §2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from novawf.errors import NovawfError
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, SafetyLevel, safe, unsafe
from novawf.store import keys
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.safety.config import StreamMonitorSettings
    from novawf.store.connect import StoreAddress

SHARED = (
    keys.WORK_QUEUE,
    keys.PRIORITY_ALERTS,
    keys.COORDINATION_ALL,
    keys.TORCH_OPERATIONS,
    keys.ENTERPRISE_METRICS,
    keys.SAFETY_EVENTS,
)
"""Streams of the fleet as a whole."""
MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class StreamsSeen:
    """One look."""

    fault: str | None = None
    """Why the store did not answer."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    lags: Mapping[str, int] = field(default_factory=dict)
    """Of streams that a group reads: entries not consumed."""
    poison: int = 0
    """Refused entries, ever."""
    memory_share: float | None = None
    """Of the store's `maxmemory`; None where it has none."""


@dataclass(frozen=True, slots=True)
class StreamMemory:
    """For the growth: how much poison there was, and when (fleet ms): about a minute ago."""

    poison: int = 0
    at_ms: int = 0
    per_minute: float = 0.0


class StreamMonitor:
    """The mechanism."""

    name = "stream_monitor"

    def __init__(
        self,
        redis: Redis,
        settings: StreamMonitorSettings,
        valid_s: float,
        *,
        deadline_s: float = 1.0,
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`deadline_s` bounds the look; `store` is named in errors."""
        self._redis: Any = redis
        self._settings = settings
        self._valid_ms = round(valid_s * 1000)
        self._store = store
        self.deadline_s = deadline_s

    async def observe(self) -> StreamsSeen:
        """One round trip."""
        try:
            with translate_errors(self._store):
                async with self._redis.pipeline(transaction=False) as pipe:
                    pipe.info("memory")
                    pipe.hgetall(keys.SIGNAL_COUNTS)
                    for stream in SHARED:
                        pipe.xlen(stream)
                        pipe.execute_command("XINFO GROUPS", stream, NEVER_DECODE=True)
                    memory, counts, *looked = await pipe.execute(raise_on_error=False)
        except NovawfError as error:
            return StreamsSeen(fault=str(error))
        if isinstance(memory, Exception):
            return StreamsSeen(fault=f"the store refuses to tell its memory: {memory}")
        lengths = {
            stream: length
            for stream, length in zip(SHARED, looked[::2], strict=True)
            if isinstance(length, int)
        }
        lags = {
            stream: _lag(groups)
            for stream, groups in zip(SHARED, looked[1::2], strict=True)
            if stream in lengths and not isinstance(groups, ResponseError) and groups
        }
        most = memory.get("maxmemory", 0)
        return StreamsSeen(
            lengths=lengths,
            lags=lags,
            poison=_poison(counts),
            memory_share=memory["used_memory"] / most if most else None,
        )

    def evaluate(
        self, observation: Observation[StreamsSeen], state: StreamMemory, now_ms: int
    ) -> Judgement[StreamMemory]:
        """Unsafe while the store does not answer, is nearly full, or nobody reads."""
        expires_ms, seen, settings = now_ms + self._valid_ms, observation.seen, self._settings
        if seen.fault is not None:
            return Judgement(unsafe(seen.fault, expires_ms), state)
        state = _grown(state, seen.poison, now_ms)
        full = seen.memory_share
        if full is not None and full >= settings.memory_share:
            said = f"the store has used {full:.0%} of its memory"
            return Judgement(unsafe(said, expires_ms), state)
        for what, found, bound in (
            ("entries that nobody has consumed", seen.lags, settings.lag),
            ("entries", seen.lengths, settings.length),
        ):
            for stream, count in found.items():
                if count >= bound:
                    said = f"{stream} holds {count:,} {what}; {bound:,} is the bound"
                    return Judgement(unsafe(said, expires_ms, Action.PAUSE), state)
        if state.per_minute >= settings.poison_per_minute:
            said = f"{state.per_minute:.0f} entries a minute are refused: `novawf tasks "
            verdict = safe(f"{said}--quarantined`", expires_ms, SafetyLevel.CAUTION)
            return Judgement(verdict, state)
        return Judgement(safe("the store answers, streams are read", expires_ms), state)

    def parse(self, memory: Any) -> StreamMemory:
        """See `Mechanism.parse`."""
        if memory is None:
            return StreamMemory()
        return StreamMemory(int(memory["poison"]), int(memory["at"]), float(memory["per_minute"]))

    def dump(self, memory: StreamMemory) -> Any:
        """See `Mechanism.dump`."""
        return {"poison": memory.poison, "at": memory.at_ms, "per_minute": memory.per_minute}


def _grown(state: StreamMemory, poison: int, now_ms: int) -> StreamMemory:
    """Count anew once a minute has passed."""
    if not state.at_ms or poison < state.poison:  # the first look, or the stream was trimmed
        return StreamMemory(poison, now_ms)
    passed_ms = now_ms - state.at_ms
    if passed_ms < MINUTE_MS:
        return state
    return StreamMemory(poison, now_ms, (poison - state.poison) * MINUTE_MS / passed_ms)


def _poison(counts: Any) -> int:
    """From the counts of signals and entries; what cannot be read counts as none."""
    if not isinstance(counts, dict):
        return 0
    refused = (value for name, value in counts.items() if name.startswith("quarantined:"))
    return sum(int(value) for value in refused if value.isdigit())


def _lag(groups: list[Any]) -> int:
    """Of the group that is furthest behind; where the store cannot tell, what is pending."""
    return max(int(group.get("lag") or 0) + int(group.get("pending") or 0) for group in groups)
