"""What a discoverer finds, what it is given to look with, and in which order finds count. Pure.

An item either waits in the queue already (then it is counted and nothing is done), or brings a
task to admit. Items that share a key are the same piece of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from novawf.tasks.model import TIER_MS, Priority, TaskSpec

if TYPE_CHECKING:
    from redis.asyncio import Redis

WANTED = 3
"""Fewer items than this are filled up with momentum tasks (spec §6), and no more are admitted."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One piece of work that somebody could do."""

    key: str
    """What it is, the same whoever finds it: a task's id, or the request id to admit it under."""
    title: str
    priority: Priority
    since_ms: int
    """Since when it waits, or when it is due; fleet ms."""
    source: str
    """The discoverer that found it."""
    spec: TaskSpec | None = None
    """The task to admit; None when it is in the queue already."""
    new: bool = False
    """Whether its discoverer put it into the queue just now."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a discoverer looks with: one moment of one Nova."""

    redis: Redis
    nova: str
    now_ms: int
    """Fleet time."""
    wall_s: float

    @property
    def client(self) -> Any:
        """The client as it is used: replies are str, and redis-py's types say bytes."""
        return self.redis


class Discoverer(Protocol):
    """One way to find work. Reads a bounded number of entries; what it changes may be repeated."""

    @property
    def name(self) -> str: ...

    async def discover(self, look: Look) -> Sequence[WorkItem]:
        """What it found, in any order. May raise anything: that costs its own finds only."""


def ranked(items: Iterable[WorkItem]) -> list[WorkItem]:
    """By tier, then by time; of those with one key the first, and one in the queue before one that
    is yet to be admitted. The same whatever the order of `items`."""
    best: dict[str, WorkItem] = {}
    for item in items:
        known = best.get(item.key)
        if known is None or _duplicate_order(item) < _duplicate_order(known):
            best[item.key] = item
    return sorted(best.values(), key=_order)


def _order(item: WorkItem) -> tuple[int, int, str]:
    return TIER_MS[item.priority], item.since_ms, item.key


def _duplicate_order(item: WorkItem) -> tuple[bool, int, int, str, str]:
    return (
        item.spec is not None, TIER_MS[item.priority], item.since_ms, item.source, item.title
    )  # fmt: skip
