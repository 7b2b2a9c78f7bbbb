"""A round of the orchestrator as the store sees it: what it reads, and the one script that it
writes. What any of it means is the mechanisms' matter.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from novawf.clock import iso
from novawf.errors import CorruptState, Fenced
from novawf.ids import FLEET
from novawf.safety.events import SafetyEvent, entry_order
from novawf.safety.gate import Hold
from novawf.safety.memory import BEGINNING, EPOCH, ORCHESTRATOR, Remembered
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.store.scripts import load_script
from novawf.telemetry.buckets import LATENCY_US

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.verdict import Verdict
    from novawf.store.connect import StoreAddress

_LOG = logging.getLogger(__name__)

_ROUND = load_script("novawf.safety", "round")
_TAKE_EPOCH = load_script("novawf.safety", "take_epoch")
EVENTS_A_ROUND = 500
"""More are judged in the rounds that follow."""
STALE = -1


@dataclass(frozen=True, slots=True)
class Written:
    """What was in the store when a round began."""

    fields: Mapping[str, str]
    """The hash of memories, as text."""
    memories: Mapping[str, Remembered | CorruptState]
    """Mechanism → its memory, or why that cannot be read."""
    events: Sequence[SafetyEvent] = ()
    """Reported and not judged by everybody yet, oldest first."""
    unposted: Sequence[SafetyEvent] = ()
    """Those of them that no round has posted to `nova.safety.*`."""
    last: str = BEGINNING
    """Id up to which events were read, unreadable ones included."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a round has found."""

    checked_at_ms: int
    verdict: Verdict
    holds: Mapping[str, Verdict]
    memories: Mapping[str, str]
    events: Sequence[SafetyEvent]
    """New ones, found by the mechanisms."""
    posts: Sequence[SafetyEvent]
    check_s: float


class RoundStore:
    """Reads and writes rounds for one orchestrator. Raises StoreUnreachable and its like, Fenced
    when a newer orchestrator is at work, CorruptState for keys of another type."""

    def __init__(
        self, redis: Redis, clock: Clock, store: StoreAddress | str, names: Sequence[str]
    ) -> None:
        """`names` are those of the mechanisms."""
        self._names = names
        self._redis: Any = redis
        self._clock = clock
        self._store = store
        self._epoch = 0
        self._posted = BEGINNING
        """The orchestrator's own cursor after this round."""
        self._read: dict[str, tuple[str | None, Remembered | CorruptState]] = {}
        """Field → its last text and what that is: most do not change from round to round."""
        self._since = BEGINNING
        """From where on events have to be read, as far as is known."""

    async def read(self) -> Written:
        """One round trip; two where there are violations."""
        with translate_errors(self._store):
            if not self._epoch:
                self._epoch = int(
                    await _TAKE_EPOCH(self._redis, [keys.SAFETY_STATE], [self._clock.now_ms()])
                )
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hgetall(keys.SAFETY_STATE)
                pipe.xrange(keys.SAFETY_EVENTS, f"({self._since}", "+", EVENTS_A_ROUND)
                fields, entries = await pipe.execute()
            if int(fields.get(EPOCH, 0)) > self._epoch:
                raise Fenced("a newer safety orchestrator is at work on this store")
            memories = {name: self._remembered(name, fields.get(name)) for name in self._names}
            own = self._remembered(ORCHESTRATOR, fields.get(ORCHESTRATOR))
            posted = own.cursor if isinstance(own, Remembered) else BEGINNING
            # One that cannot be read will say so, and hears nothing until it is reset.
            since = min(
                (each.cursor for each in (own, *memories.values()) if isinstance(each, Remembered)),
                key=entry_order,
                default=BEGINNING,
            )
            ahead = entry_order(since) > entry_order(self._since)
            if (ahead and entries) or entry_order(since) < entry_order(self._since):
                entries = await self._redis.xrange(
                    keys.SAFETY_EVENTS, f"({since}", "+", EVENTS_A_ROUND
                )
        self._since = since
        events = _parsed(entries)
        last = entries[-1][0] if entries else since
        unposted = [event for event in events if entry_order(event.id) > entry_order(posted)]
        self._posted = max(posted, last, key=entry_order)
        return Written(fields, memories, events, unposted, last)

    def _remembered(self, name: str, text: str | None) -> Remembered | CorruptState:
        known = self._read.get(name)
        if known is None or known[0] != text:
            try:
                known = text, Remembered.parse(name, text)
            except CorruptState as error:
                known = text, error
            self._read[name] = known
        return known[1]

    async def write(self, found: Round) -> bool:
        """Write it; False when a later verdict is in place."""
        streams = list(dict.fromkeys(keys.safety(_whose(event)) for event in found.posts))
        places = {stream: number for number, stream in enumerate(streams, 5)}
        memories = dict(found.memories)
        if found.posts:
            memories[ORCHESTRATOR] = Remembered(self._posted).to_json()
        check_us = int(found.check_s * 1_000_000)
        verdict = found.verdict
        args: list[str | int] = [
            found.checked_at_ms, verdict.expires_at_ms, "safe" if verdict.is_safe else "unsafe",
            verdict.reason, self._clock.now_ms(), iso(self._clock.wall_s()),
            verdict.recommended_action.word, verdict.until_ms, self._epoch,
            bisect.bisect_left(LATENCY_US, check_us), check_us, len(found.holds),
        ]  # fmt: skip
        for nova, hold in found.holds.items():
            args += [nova, Hold(hold.recommended_action.word, hold.until_ms, hold.reason).text()]
        args.append(len(memories))
        for name, text in memories.items():
            args += [name, text]
        args.append(len(found.events))
        for event in found.events:
            fields = event.fields()
            args += [fields["kind"], fields["source"], fields["nova"], fields["detail"]]
        args.append(len(found.posts))
        skew_s = self._clock.wall_s() - self._clock.now_ms() / 1000
        for event in found.posts:
            at = iso(event.at_ms / 1000 + skew_s)
            place = places[keys.safety(_whose(event))]
            args += [place, event.kind.value, event.source, event.detail, at]
        with translate_errors(self._store):
            reply = await _ROUND(
                self._redis,
                [keys.GATE, keys.SAFETY_STATE, keys.SAFETY_EVENTS, keys.SAFETY_COUNTS, *streams],
                args,
            )
        if reply == STALE:
            raise Fenced("a newer safety orchestrator is at work on this store")
        return bool(reply)


def _parsed(entries: Sequence[tuple[str, Mapping[str, str]]]) -> list[SafetyEvent]:
    """What can be read: anybody may write to a stream, and nonsense blocks nothing."""
    events = []
    for entry_id, fields in entries:
        try:
            events.append(SafetyEvent.parse(entry_id, fields))
        except CorruptState as error:
            _LOG.warning("%s; it is passed over", error)
    return events


def _whose(event: SafetyEvent) -> str:
    return event.nova or FLEET
