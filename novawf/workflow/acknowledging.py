"""When an emergency stop is acknowledged: as soon as no further task can begin anywhere.

The gate is shut already, so nothing is claimed any more. What was claimed before may still begin,
until its start is over (`executors.start`). Each Nova that is there says when that is so of its own
(`stopping.py`). One that says nothing (stopped by a signal, hung, dead a moment ago, a message that
was lost) is waited for no longer than any start can take that the gate let through: time rules out
the rest, and so every stop is acknowledged, whoever is silent.

This decides who must speak and waits for it; it changes nothing, so it may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from novawf.clock import Clock, monotonic_s, parse_iso
from novawf.errors import CorruptState
from novawf.executors.start import SETTLE_S, START_MS
from novawf.store import keys
from novawf.store.ownership import Owner
from novawf.workflow.identity import ChildRecord

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.safety.gate import Shut

LIMIT_S = START_MS / 1000 + SETTLE_S
"""After this no start is open that the gate let through before."""

APART_S = 1.0
"""On a cluster besides: a claim that waited in the store goes by the orchestrator's clock, and
machines may be so far apart (decision 019)."""

LONG_DEAD_S = 10.0
"""Whoever has been dead for so long, by the wall clock of its supervisor, need not speak."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A stop that is acknowledged."""

    at_s: float
    """Unix time from which on no task begins."""
    waited_s: float
    """From the shut gate until then."""
    spoke: tuple[str, ...]
    silent: tuple[str, ...]
    """Novas that did not acknowledge; time did it for them."""
    stamps: tuple[str, ...] = ()
    """Of what the silent ones have started: keepers know it by these."""


def who_must_speak(
    children: Mapping[str, str],
    beats: Mapping[str, str],
    identities: Mapping[str, str],
    wall_s: float,
) -> dict[str, int]:
    """Nova → epoch of the life that must acknowledge, from the store's records as they are.

    Fails closed: a record that cannot be read is one of somebody who may be at work.
    """
    awaited = {}
    for name in sorted({*children, *beats}):
        epoch = identities.get(name, "")
        if not epoch.isdigit():
            continue  # nobody has ever claimed anything under this name
        text = children.get(name)
        if text is not None and not _may_work(text, wall_s):
            continue
        awaited[name] = int(epoch)
    return awaited


def _may_work(text: str, wall_s: float) -> bool:
    try:
        record = ChildRecord.from_json(text)
        if record.kind != "nova":
            return False
        return record.alive or wall_s - parse_iso(record.since) < LONG_DEAD_S
    except (CorruptState, ValueError):
        return True


async def acknowledged(redis: Redis, clock: Clock, shut: Shut) -> Acknowledged:
    """Wait until no task can begin. Never raises for the store: then time alone tells."""
    began_s = monotonic_s()
    limit_s = LIMIT_S + APART_S
    awaited: dict[str, int] | None = None
    spoke: set[str] = set()
    client: Any = redis
    try:
        async with asyncio.timeout(limit_s):
            limit_s, awaited = await _read(client, clock)
            last, born_ms = shut.after, 0
            while spoke != awaited.keys():
                left_s = began_s + limit_s - monotonic_s()
                if left_s <= 0:
                    break
                found = await client.xread({keys.STOP_WORDS: last}, block=int(left_s * 1000) + 1)
                for entry, word in found[0][1] if found else ():
                    last = entry
                    if _counts(word, shut.number, awaited):
                        spoke.add(word["nova"])
                        born_ms = max(born_ms, int(word["born_ms"]))
        # All that the gate let through was before it was shut.
        rest_s = began_s + limit_s - monotonic_s()
        if spoke == awaited.keys():
            # A life speaks for itself alone: of one before it, a start may still be open.
            rest_s = min(rest_s, (born_ms - clock.now_ms()) / 1000 + limit_s)
    except (RedisError, OSError, TimeoutError, ValueError, KeyError, UnicodeDecodeError):
        rest_s = began_s + limit_s - monotonic_s()
    if rest_s > 0:
        await asyncio.sleep(min(rest_s, limit_s))
    silent = sorted((awaited or {}).keys() - spoke)
    return Acknowledged(
        at_s=clock.wall_s(),
        waited_s=monotonic_s() - began_s,
        spoke=tuple(sorted(spoke)),
        silent=tuple(silent),
        stamps=tuple(f"{name}:{(awaited or {})[name]}" for name in silent),
    )


def _counts(word: Mapping[str, str], number: int, awaited: Mapping[str, int]) -> bool:
    """Whether these words are about this stop, and of the life that must speak."""
    return word.get("n") == str(number) and str(awaited.get(word.get("nova", ""))) == word.get(
        "epoch"
    )


async def _read(client: Any, clock: Clock) -> tuple[float, dict[str, int]]:
    """The longest that a start may be open, and who must speak."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.CHILDREN)
        pipe.hgetall(keys.NOVAS)
        pipe.hgetall(keys.IDENTITY)
        pipe.hget(keys.FLEET_OWNER, "about")
        children, beats, identities, about = await pipe.execute()
    try:
        on_cluster = about is not None and Owner.from_json(about).on_cluster
    except CorruptState:
        on_cluster = True
    limit_s = LIMIT_S + (APART_S if on_cluster else 0.0)
    return limit_s, who_must_speak(children, beats, identities, clock.wall_s())
