"""What a built-in job is, and what it is given. Not the jobs, nor who decides that one is due."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from novawf.clock import Clock
from novawf.tasks.archive import Archive

if TYPE_CHECKING:
    from redis.asyncio import Redis


FAILURE_REVIEW: Final = "failure_review"
DEADLINE_REVIEW: Final = "deadline_review"
"""Jobs that the strategic planner asks for by name."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """What a job works with, inside the process of the Nova that runs it."""

    redis: Redis
    clock: Clock
    nova: str
    archive: Archive | None = None
    """Where ended tasks go; None where this Nova has no files to write to."""

    @property
    def client(self) -> Any:
        """The client as it is used: replies are str, and redis-py's types say bytes."""
        return self.redis


Run = Callable[[JobContext, tuple[Any, ...]], Awaitable[dict[str, Any]]]
"""Does the job with the task's `args`; the answer is JSON, and is kept as the task's result. It
raises for faults of its own; what it finds wrong is part of the answer."""


@dataclass(frozen=True, slots=True)
class BuiltInJob:
    """One kind of maintenance."""

    name: str
    title: str
    about: str
    run: Run
    interval_s: float | None = None
    """As momentum at most once in this time; None: never as momentum."""
    per_nova: bool = False
    """Each Nova does it for itself, rather than one for the fleet."""
