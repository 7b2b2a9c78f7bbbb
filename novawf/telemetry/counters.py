"""Counters and latencies as the store keeps them in `keys.TASK_COUNTS`: the fields' names.

Scripts count tasks themselves, in the same step as the change. Here is what others count, and how
the fields are read. Light: whoever counts imports no prometheus.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from novawf.store import keys
from novawf.telemetry.buckets import LATENCY_US

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

_RESTART = "restart"
_NOT_IN_LABELS = re.compile(r"[^a-z0-9_]+")


class Latency(NamedTuple):
    """A histogram: (upper bound in seconds, observations up to it), the last bound infinite."""

    buckets: tuple[tuple[float, int], ...]
    sum_s: float


def count_restart(redis: Redis | Pipeline, child: str, cause: str) -> Awaitable[Any]:
    """Count a restart of `child`. Of `cause` what stands before a colon counts, as there is a
    series for each: `StoreUnreachable: the store at …` is one cause whatever follows.

    Give it the pipeline that writes the child's record, so that both are seen together. Counts
    outlive supervisor and metrics actor.
    """
    reply: Any = redis.hincrby(keys.TASK_COUNTS, f"{_RESTART}:{child}:{_label(cause)}", 1)
    return reply  # type: ignore[no-any-return]


def restarts(counts: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """(child, cause, how often) of every counted restart."""
    for field, value in counts.items():
        kind, _, rest = field.partition(":")
        child, _, cause = rest.partition(":")
        if kind == _RESTART and cause:
            yield child, cause, number(value)


def latency(counts: Mapping[str, str], measured: str) -> Latency:
    """The histogram of `measured` (`duration`, `claim`, `wake`) from its bucket counts."""
    observed = (
        number(counts.get(f"{measured}:{bucket}", "0")) for bucket in range(len(LATENCY_US) + 1)
    )
    bounds_s = (*(bound_us / 1_000_000 for bound_us in LATENCY_US), float("inf"))
    return Latency(
        tuple(zip(bounds_s, accumulate(observed), strict=True)),
        number(counts.get(f"{measured}:sum", "0")) / 1_000_000,
    )


def number(text: str | None) -> int:
    """A counter's value; 0 for what is none, because telemetry fails open."""
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _label(cause: str) -> str:
    """A cause fit for a label and a field: lower case, no separators, at most 40 characters."""
    word = cause.partition(":")[0].lower()
    return _NOT_IN_LABELS.sub("_", word).strip("_")[:40] or "unknown"
