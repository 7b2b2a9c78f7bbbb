"""Fleet time's anchor: one offset per boot, kept in the store, so that all processes agree.

`SystemClock(offset_ms=await anchor(redis))` is how a process gets its clock. This is not a time
service: after the anchor is read, telling the time costs no round trip.

Machines of a cluster have a boot each. Theirs are set against the store's TIME (`anchor_by_store`),
corrected by how far that has moved away from fleet time since (`note_drift`); decision 019 has the
limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from novawf import clock
from novawf.store import keys
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from redis.asyncio import Redis

_ANCHOR = load_script("novawf.store", "anchor")

DRIFT = "drift_ms"
"""Field of the clock's hash: the store's TIME minus fleet time, as the supervisor saw it last."""
TRIPS = 5
"""Round trips for one measurement of TIME; the quickest is believed."""


async def anchor(
    redis: Redis,
    *,
    boot_id: str | None = None,
    wall_offset_ms: int | None = None,
    boottime_ms: int | None = None,
) -> int:
    """The offset of fleet time to boot time, in ms; sets it when this boot has none yet.

    Also notes the current fleet time in the store, below which no later boot starts: the
    supervisor calls it at start and then every few seconds, and so bounds what a wall clock that
    went back over a reboot can repeat. The keyword arguments stand for this machine's own values.
    """
    boot = clock.boot_id() if boot_id is None else boot_id
    offset_ms = clock.wall_offset_ms() if wall_offset_ms is None else wall_offset_ms
    since_boot_ms = clock.boottime_ms() if boottime_ms is None else boottime_ms
    # A kernel that does not tell its boots apart is one boot for ever: better than processes
    # that disagree, and only a container without /proc is like that.
    reply = await _ANCHOR(redis, [keys.CLOCK], [boot or "unknown", offset_ms, since_boot_ms])
    return int(reply)


async def anchor_by_store(redis: Redis, *, boot_id: str | None = None) -> int:
    """`anchor` for a process that may be on any machine: a boot that has no offset yet gets one by
    the store's TIME instead of its own wall clock. Off by half a round trip at most."""
    ahead_ms = await _ahead_ms(redis, 0)
    drift = await cast("Awaitable[str | None]", redis.hget(keys.CLOCK, DRIFT))
    return await anchor(redis, boot_id=boot_id, wall_offset_ms=ahead_ms - int(drift or 0))


async def note_drift(redis: Redis, offset_ms: int) -> int:
    """Keep how far TIME is ahead of the fleet time of this machine, in ms, for machines to come."""
    drift_ms = await _ahead_ms(redis, offset_ms)
    await redis.hset(keys.CLOCK, DRIFT, str(drift_ms))
    return drift_ms


async def apart_ms(redis: Redis, offset_ms: int) -> int:
    """How far fleet time here (by `offset_ms`) is behind the supervisor's, in ms; both as measured
    against TIME."""
    ahead_ms = await _ahead_ms(redis, offset_ms)
    drift = await cast("Awaitable[str | None]", redis.hget(keys.CLOCK, DRIFT))
    return ahead_ms - int(drift) if drift is not None else 0


async def _ahead_ms(redis: Redis, offset_ms: int) -> int:
    """The store's TIME minus boot time plus `offset_ms`, in ms."""
    best: tuple[int, int] | None = None
    for _ in range(TRIPS):
        before_ms = clock.boottime_ms()
        seconds, microseconds = await redis.time()
        trip_ms = clock.boottime_ms() - before_ms
        ahead_ms = int(seconds) * 1000 + int(microseconds) // 1000 - before_ms - trip_ms // 2
        if best is None or trip_ms < best[0]:
            best = trip_ms, ahead_ms
    return best[1] - offset_ms if best is not None else 0


async def read_anchor(redis: Redis, *, boot_id: str | None = None) -> int:
    """The offset that `anchor` set for this boot; this machine's wall clock where there is none."""
    boot = clock.boot_id() if boot_id is None else boot_id
    stored = await cast("Awaitable[str | None]", redis.hget(keys.CLOCK, boot or "unknown"))
    return clock.wall_offset_ms() if stored is None else int(stored)
