"""The gate: one hash that every claim script reads before it lets work start.

It holds the safety verdict and its validity, the emergency stop, and who is paused. This module
writes and reads it; the refusal itself is the claim script's, so nothing can slip between looking
and starting. What the verdict should be is decided elsewhere (`orchestrator.py`).

| field | meaning |
|---|---|
| `verdict`, `reason` | `safe` or `unsafe`, and why |
| `action`, `until` | how strong an unsafe verdict is, and its expected end (fleet ms; 0 unknown) |
| `hold:<nova>` | `action|until|reason`: what the mechanisms have against that Nova alone |
| `checked_at`, `valid_until` | fleet ms: when it was evaluated, until when it holds |
| `stop` | `1` while the emergency stop is on |
| `stop_reason`, `stop_by`, `stop_at`, `stop_wall` | why, who, fleet ms, unix s |
| `stop_drains` | `1` while the stop lets running work finish |
| `stop_number` | by which Novas acknowledge the stop; a new one when it ends running work too |
| `cleared_by`, `cleared_at` | who ended the last stop, and when (fleet ms) |
| `paused`, `paused:<nova>` | `1` while the fleet or that Nova is paused |
| `clock` | fleet ms, ISO time and the store's µs at the last verdict: see `claim.lua` |
| `epoch` | counts every change of stop and pause |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from novawf.clock import iso
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.verdict import Verdict
    from novawf.store.connect import StoreAddress

_PAUSED = "paused"
_HOLD = "hold:"
_REFRESH = load_script("novawf.safety", "refresh")
_STOP = load_script("novawf.safety", "stop")
_CLEAR_STOP = load_script("novawf.safety", "clear_stop")
_PAUSE = load_script("novawf.safety", "pause")
_RESUME = load_script("novawf.safety", "resume")


class Shut(NamedTuple):
    """A stop that stands: the gate is shut."""

    number: int
    """By which Novas acknowledge it."""
    drains: bool
    """Whether running work may finish."""
    changed: bool
    """Whether this call stopped the fleet, or made a stop end running work."""
    after: str
    """Id behind which the acknowledgements come, in `STOP_WORDS`."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What keeps one Nova from starting anything."""

    action: str
    until_ms: int
    """When it is expected to end (fleet ms); 0 unknown."""
    reason: str
    """The mechanism's name, a colon, and why."""

    def text(self) -> str:
        """As the gate keeps it."""
        return f"{self.action}|{self.until_ms}|{self.reason}"

    @classmethod
    def parse(cls, text: str) -> Hold:
        """Raises ValueError for a text that is none of ours."""
        action, until_ms, reason = text.split("|", 2)
        return cls(action, int(until_ms), reason)


@dataclass(frozen=True, slots=True)
class GateView:
    """The gate as it was at one moment."""

    is_safe: bool = False
    reason: str = ""
    checked_at_ms: int = 0
    valid_until_ms: int = 0
    stopped: bool = False
    stop_reason: str = ""
    stop_by: str = ""
    stop_at_ms: int = 0
    stop_wall_s: float = 0.0
    stop_drains: bool = False
    fleet_paused: bool = False
    paused_novas: frozenset[str] = frozenset()
    epoch: int = 0
    action: str = ""
    until_ms: int = 0
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """Nova → what the safety mechanisms have against it."""

    def is_paused(self, nova: str) -> bool:
        """Whether a pause, its own or the fleet's, holds this Nova."""
        return self.fleet_paused or nova in self.paused_novas

    def blocking_reason(self, nova: str | None, now_ms: int) -> str | None:
        """Why nothing may start on `nova` (None: anywhere) now, in one sentence; None if it may.

        The same conditions, in the same order, as in the claim script.
        """
        if self.stopped:
            since = iso(self.stop_wall_s)
            return f"The fleet is stopped since {since} by {self.stop_by}: {self.stop_reason}."
        against = self._verdict_against(now_ms)
        if against is not None:
            return against
        if self.fleet_paused:
            return "The fleet is paused; `novawf resume` lets it go on."
        if nova is not None and nova in self.paused_novas:
            return f"{nova} is paused; `novawf resume {nova}` lets it go on."
        if nova is not None and nova in self.holds:
            return f"{nova} is held for safety: {self.holds[nova].reason}."
        return None

    def _verdict_against(self, now_ms: int) -> str | None:
        if not self.valid_until_ms:
            return "No safety verdict has been given yet."
        if self.valid_until_ms < now_ms:
            late_s = (now_ms - self.valid_until_ms) / 1000
            return f"The safety verdict expired {late_s:.1f} s ago; the orchestrator must renew it."
        if not self.is_safe:
            return f"The fleet is held for safety: {self.reason}."
        return None


class Gate:
    """Reads and changes the gate. Every method may be repeated without harm.

    All raise StoreUnreachable when the store does not answer; whether the change took place is
    then unknown, and repeating it is the remedy.
    """

    def __init__(self, redis: Redis, clock: Clock, store: StoreAddress | str = "its URL") -> None:
        """`store` is named in errors."""
        self._redis = redis
        self._clock = clock
        self._store = store

    async def refresh(self, verdict: Verdict, checked_at_ms: int | None = None) -> bool:
        """Write a verdict evaluated at `checked_at_ms` (default: now); holds until it expires.

        Stop and pause stay as they are. False when a later verdict is in place already.
        """
        checked_at_ms = self._clock.now_ms() if checked_at_ms is None else checked_at_ms
        word = "safe" if verdict.is_safe else "unsafe"
        with translate_errors(self._store):
            written = await _REFRESH(
                self._redis,
                [keys.GATE],
                [
                    checked_at_ms,
                    verdict.expires_at_ms,
                    word,
                    verdict.reason,
                    self._clock.now_ms(),
                    iso(self._clock.wall_s()),
                    verdict.recommended_action.word,
                    verdict.until_ms,
                ],
            )
        return bool(written)

    async def stop(self, reason: str, by: str) -> float:
        """`shut`, and the time (unix s) from which on no claim can succeed."""
        await self.shut(reason, by)
        # Taken after the reply: the promise begins when the script has run, not before.
        return self._clock.wall_s()

    async def shut(self, reason: str, by: str, *, drains: bool = False) -> Shut:
        """Emergency stop: no claim succeeds any more.

        What was claimed before may still begin; whether that is over is told by the Novas
        (`workflow.acknowledging`). Every known one is told through its inbox, to end what it has
        in hand, or with `drains` to let it finish. While a stop stands, a further one keeps its
        reason and time; one that does not drain makes of one that does a stop that ends work, and
        never the other way round.
        """
        from redis.exceptions import ResponseError  # noqa: PLC0415 - see store.connect

        with translate_errors(self._store):
            try:
                inboxes = [keys.inbox(nova) for nova in await self._novas()]
            except ResponseError:  # a key of another type must not keep the gate open
                inboxes = []
            reply: Any = await _STOP(
                self._redis,
                [keys.GATE, keys.STOP_WORDS, *inboxes],
                [
                    self._clock.now_ms(),
                    f"{self._clock.wall_s():.3f}",
                    reason,
                    by,
                    "1" if drains else "0",
                ],
            )
        change, number, draining, after = reply
        return Shut(number, bool(draining), bool(change), after)

    async def clear_stop(self, by: str) -> bool:
        """End the emergency stop and wake everybody; False when there was none."""
        with translate_errors(self._store):
            wakes = await self._fleet_wakes()
            inboxes = [keys.inbox(nova) for nova in await self._novas()]
            cleared = await _CLEAR_STOP(
                self._redis,
                [keys.GATE, *wakes, *inboxes],
                [self._clock.now_ms(), by, len(wakes)],
            )
        return bool(cleared)

    async def pause(self, nova: str | None = None) -> bool:
        """Pause one Nova or (None) the fleet; False when it was paused already."""
        with translate_errors(self._store):
            return bool(await _PAUSE(self._redis, [keys.GATE], [_field(nova)]))

    async def resume(self, nova: str | None = None) -> bool:
        """End the pause of one Nova or (None) of the fleet, and wake whom it held.

        The fleet's pause and a Nova's own are two things: resuming the fleet leaves a Nova that
        was paused by name as it is. False when there was no pause.
        """
        with translate_errors(self._store):
            wakes = await self._fleet_wakes() if nova is None else [keys.wake(nova)]
            return bool(await _RESUME(self._redis, [keys.GATE, *wakes], [_field(nova)]))

    async def read(self) -> GateView:
        """The gate as it is now. Raises CorruptState when a field is not what we wrote."""
        with translate_errors(self._store):
            # Clients of `store.connect` decode replies; redis-py's types cannot tell.
            fields = cast("dict[str, str]", await self._redis.hgetall(keys.GATE))
        try:
            return parse_gate(fields)
        except ValueError as error:
            raise CorruptState(
                f"the gate ({keys.GATE}) holds a field that is not a number: {error}; "
                "`novawf safety reset gate`"
            ) from error

    async def repair(self, by: str) -> None:
        """Replace a gate that cannot be read by one whose emergency stop is on.

        What it said of stop and pauses is lost with it, so nothing starts until somebody has looked
        and cleared that stop.
        """
        reason = "the gate could not be read and was replaced"
        client: Any = self._redis
        with translate_errors(self._store):
            async with client.pipeline(transaction=True) as pipe:
                pipe.delete(keys.GATE)
                pipe.hset(
                    keys.GATE,
                    mapping={
                        "stop": "1",
                        "stop_reason": reason,
                        "stop_by": by,
                        "stop_at": self._clock.now_ms(),
                        "stop_wall": f"{self._clock.wall_s():.3f}",
                    },
                )
                await pipe.execute()

    async def _novas(self) -> list[str]:
        return sorted(cast("list[str]", await self._redis.hkeys(keys.NOVAS)))

    async def _fleet_wakes(self) -> list[str]:
        return [keys.WAKE_ANY, *(keys.wake(nova) for nova in await self._novas())]


def parse_gate(fields: Mapping[str, str]) -> GateView:
    """The view of a gate's fields; raises ValueError for a number that is none."""
    prefix = f"{_PAUSED}:"
    return GateView(
        is_safe=fields.get("verdict") == "safe",
        reason=fields.get("reason", ""),
        checked_at_ms=int(fields.get("checked_at", "0")),
        valid_until_ms=int(fields.get("valid_until", "0")),
        stopped=fields.get("stop") == "1",
        stop_reason=fields.get("stop_reason", ""),
        stop_by=fields.get("stop_by", ""),
        stop_at_ms=int(fields.get("stop_at", "0")),
        stop_wall_s=float(fields.get("stop_wall", "0")),
        stop_drains=fields.get("stop_drains") == "1",
        fleet_paused=fields.get(_PAUSED) == "1",
        paused_novas=frozenset(
            name.removeprefix(prefix)
            for name, value in fields.items()
            if name.startswith(prefix) and value == "1"
        ),
        epoch=int(fields.get("epoch", "0")),
        action=fields.get("action", ""),
        until_ms=int(fields.get("until", "0")),
        holds={
            name.removeprefix(_HOLD): Hold.parse(text)
            for name, text in fields.items()
            if name.startswith(_HOLD)
        },
    )


def _field(nova: str | None) -> str:
    return _PAUSED if nova is None else f"{_PAUSED}:{nova}"
