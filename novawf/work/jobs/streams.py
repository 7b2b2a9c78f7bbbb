"""Stream statistics: how long the protocol's streams are, how fast they grow, who is behind."""

from __future__ import annotations

from typing import Any, Final

from novawf.store import keys
from novawf.streams.lag import StreamStat, stream_statistics
from novawf.work.jobs.table import JobContext

SHOWN: Final = 20
"""Streams named in the result: the longest ones. The figures in sum are of all."""


async def statistics(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"streams", "entries", "bytes", "lag", "longest": [one a stream], "behind": [name]}`."""
    novas = sorted(await context.client.hkeys(keys.NOVAS))
    stats = await stream_statistics(context.redis, novas)
    stats.sort(key=lambda stat: (-stat.length, stat.name))
    return {
        "streams": len(stats),
        "entries": sum(stat.length for stat in stats),
        "bytes": sum(stat.bytes or 0 for stat in stats),
        "lag": sum(stat.lag or 0 for stat in stats),
        "behind": [stat.name for stat in stats if stat.lag],
        "longest": [_row(stat) for stat in stats[:SHOWN]],
    }


def _row(stat: StreamStat) -> dict[str, Any]:
    """One stream; `per_hour` is the mean over the time that its entries cover."""
    age_s = stat.oldest_age_s
    return {
        "name": stat.name,
        "length": stat.length,
        "lag": stat.lag,
        "oldest_age_s": age_s,
        "per_hour": round(stat.length / age_s * 3600, 1) if age_s and age_s >= 1 else None,
    }
