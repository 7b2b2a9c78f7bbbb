"""The records of the routine as stream entries, and the one call that writes them.

Where they go: celebrations to `nova.celebrations.{nova}`; reflections and summaries, which are the
Nova's private insights, to `nova.insights.{nova}`; what comes next, a fact about its work, to
`nova.status.{nova}`. Each call moves a marker along (hash `novawf:completion`), so that a repeat
writes nothing. Keeping the streams short is not done here but for all streams alike, past what
others have read of them (`streams.trimming`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from novawf.completion.celebration import Celebration
from novawf.completion.consolidation import Summary
from novawf.completion.evidence import Evidence
from novawf.completion.reflection import Reflection
from novawf.completion.transition import Plan, Upcoming
from novawf.errors import Fenced
from novawf.store import keys
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis

RECORD = load_script("novawf.completion", "record")

CELEBRATIONS, INSIGHTS, STATUS = "3", "4", "5"
"""Numbers of the streams among the script's keys."""


class Record(NamedTuple):
    """One stream entry: the number of its key, then fields and values in turn."""

    key: str
    fields: tuple[str, ...]


class Written(NamedTuple):
    """What became of a call. Unless `written`, nothing was changed."""

    written: bool
    marker: str | None
    """The marker after the call; None when the completed record it was to name was not found."""
    error: str
    """Why some record was left out; empty when none was."""


class Recorder:
    """Writes the records of one life of one Nova."""

    def __init__(self, redis: Redis, nova: str, nova_epoch: int) -> None:
        self.redis = redis
        self.nova = nova
        self._head = (nova, str(nova_epoch))
        self._keys = (
            keys.IDENTITY, keys.COMPLETION, keys.celebrations(nova), keys.insights(nova),
            keys.status(nova), keys.completed(nova),
        )  # fmt: skip

    async def write(
        self,
        field: str,
        expected: str,
        records: Sequence[Record],
        *,
        marker: str = "",
        task_id: str = "",
    ) -> Written:
        """Move the marker `field` from `expected` to `marker`, and write `records` along.

        Without a `marker` it is moved to the completed record of `task_id`. Raises Fenced, or
        redis' errors; then the call may be repeated.
        """
        args = [*self._head, field, expected, marker, task_id]
        for record in records:
            args += [record.key, str(len(record.fields)), *map(_fit, record.fields)]
        code, now, error = await RECORD(self.redis, self._keys, args)
        if code == -5:
            raise Fenced(f"{self.nova}: a newer owner has this identity")
        return Written(code == 1, now if code else None, error)


def celebrated(evidence: Evidence, celebration: Celebration) -> Record:
    """A celebration of one task."""
    return Record(
        CELEBRATIONS,
        (
            "type", "task", "task_id", evidence.task_id, "title", evidence.title,
            "level", celebration.level, "impact", celebration.impact, "timestamp", evidence.at,
        ),
    )  # fmt: skip


def celebrated_burst(
    count: int, first_task_id: str, last_task_id: str, celebration: Celebration, at: str
) -> Record:
    """One celebration of `count` tasks that ended close together, all but the first by name."""
    return Record(
        CELEBRATIONS,
        (
            "type", "burst", "task_id", last_task_id, "title", f"{count} tasks",
            "level", celebration.level, "impact", celebration.impact, "timestamp", at,
            "count", str(count), "first_task_id", first_task_id,
        ),
    )  # fmt: skip


def reflected(evidence: Evidence, reflection: Reflection) -> Record:
    """An insight from one task; texts that say nothing are left out."""
    texts = (
        ("lessons", reflection.lessons),
        ("improvements", reflection.improvements),
        ("skill", reflection.skill),
        ("applications", reflection.applications),
    )
    said = [part for name, text in texts if text for part in (name, text)]
    head = ("type", "reflection", "task_id", evidence.task_id, "timestamp", evidence.at)
    return Record(INSIGHTS, (*head, "signs", reflection.signs, *said))


def planned(after: str, plan: Plan, upcoming: Upcoming, at: str) -> Record:
    """What comes after the task `after`."""
    fields = [
        "type", "transition", "after", after, "next", plan.next, "timestamp", at,
        "phase", upcoming.phase, "tasks_in_phase", str(upcoming.tasks_in_phase),
    ]  # fmt: skip
    if plan.next_task:
        fields += ["next_task_id", plan.next_task, "next_title", plan.next_title]
    if plan.due_in_s is not None:
        fields += ["due_in_s", f"{plan.due_in_s:.3f}"]
    return Record(STATUS, tuple(fields))


def summarised(
    summary: Summary, at: str, rested_s: float, ended_by: Literal["time", "work", "drain"]
) -> Record:
    """What a personal phase made of the insights since the one before."""
    return Record(
        INSIGHTS,
        (
            "type", "personal", "timestamp", at, "reflections", str(summary.reflections),
            "signs", summary.signs, "skills", summary.skills,
            "improvements", summary.improvements, "rested_s", f"{rested_s:.1f}",
            "ended_by", ended_by,
        ),
    )  # fmt: skip


def _fit(text: str) -> str:
    """Fit for the store: titles and errors may hold surrogates."""
    return text if text.isascii() else text.encode(errors="replace").decode()
