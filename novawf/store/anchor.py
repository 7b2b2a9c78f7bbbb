"""Fleet time's anchor: one offset per boot, kept in the store, so that all processes agree.

`SystemClock(offset_ms=await anchor(redis))` is how a process gets its clock. This is not a time
service: after the anchor is read, telling the time costs no round trip.
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


async def read_anchor(redis: Redis, *, boot_id: str | None = None) -> int:
    """The offset that `anchor` set for this boot; this machine's wall clock where there is none."""
    boot = clock.boot_id() if boot_id is None else boot_id
    stored = await cast("Awaitable[str | None]", redis.hget(keys.CLOCK, boot or "unknown"))
    return clock.wall_offset_ms() if stored is None else int(stored)
