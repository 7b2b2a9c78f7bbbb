"""What an explanation is made of: records of the store, judged at one moment. Pure.

A `NovaEvidence` puts two records side by side: what the supervisor knows of a process
(`ChildRecord`) and what the Nova says of itself (`NovaBeat`), and what the queue says it has in
hand. Three levels come of it (architecture §3): *alive*, the process is there; *listening*, it
answers in time; *progressing*, a cycle or the output of its work moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from novawf.safety.gate import GateView
from novawf.tasks.state import Event, TaskState
from novawf.workflow.identity import ChildRecord, NovaBeat

LISTENING_MS: Final = 30_000
"""Three idle waits of 10 s (`TaskSettings.idle_wait_s`): a Nova shows itself that often."""
LEAST_PATIENCE_MS: Final = 5_000
"""However short its lease: a busy machine may keep a Nova from showing itself for a moment."""
PROGRESS_MS: Final = 60_000
"""A Nova with a task in hand that moved nothing for so long is not progressing."""


class Held(NamedTuple):
    """A task in the hands of a Nova, as the queue has it."""

    task_id: str
    state: TaskState
    lease_ms: int


@dataclass(frozen=True, slots=True)
class NovaEvidence:
    """One Nova at one moment."""

    name: str
    record: ChildRecord | None
    """None when no supervisor speaks of it."""
    beat: NovaBeat | None
    """Of the process that lives now; None when that has said nothing yet, or none lives."""
    alive: bool
    listening: bool
    progressing: bool
    held: Held | None = None

    @property
    def task(self) -> str:
        """The task in hand: by the queue's word, else by its own; empty for none."""
        if self.held is not None:
            return self.held.task_id
        return self.beat.task if self.beat is not None else ""


def judge_nova(
    name: str,
    record: ChildRecord | None,
    beat: NovaBeat | None,
    now_ms: int,
    held: Held | None = None,
    *,
    lease_ms: int = LISTENING_MS,
) -> NovaEvidence | None:
    """Put a Nova's records together; None when what they tell of is no Nova of this fleet.

    A Nova that no supervisor's record knows counts only while it is listening: what a former run
    left behind is no Nova. One with a task in hand renews its lease whenever it shows itself, so
    after a lease without a sign of life its task is not its own any more, whatever it said last.
    """
    if record is not None and record.kind != "nova":
        return None
    if record is not None and beat is not None and record.alive and record.pid != beat.pid:
        beat = None  # of the process before this one
    patience_ms = LISTENING_MS
    if beat is not None and beat.task:
        patience_ms = min(LISTENING_MS, max(LEAST_PATIENCE_MS, lease_ms))
    heard = beat is not None and now_ms - beat.seen_ms <= patience_ms
    if record is None and not heard:
        return None
    alive = heard if record is None else record.alive
    if not alive or beat is None:
        return NovaEvidence(name, record, None, alive, False, False, held)
    moving = heard and (not beat.task or now_ms - beat.progress_ms <= PROGRESS_MS)
    return NovaEvidence(name, record, beat, alive, heard, moving, held)


class Permits(NamedTuple):
    """The API limits, as far as an explanation needs them."""

    blocked_by: str = ""
    """A `limits.ledger.Blocker`: `minute`, `breaker` …; empty when a permit is free."""
    free_in_ms: int = 0
    per_minute: int = 0
    per_hour: int = 0
    concurrent: int = 0
    limit: str = ""
    """The limit or upstream that blocks; empty: the fleet's own."""


class Supervisor(NamedTuple):
    """Who owns the store, by the lease that a living supervisor renews."""

    pid: int
    host: str
    home: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class FleetEvidence:
    """What holds for all tasks and all Novas."""

    state: str = ""
    """What the running fleet says of itself; empty when none has said anything."""
    supervised: bool | None = None
    """Whether a supervisor lives; None where that cannot be seen (the store alone is known)."""
    owner: Supervisor | None = None
    """None when nobody owns the store."""
    gate: GateView = field(default_factory=GateView)
    novas: Mapping[str, NovaEvidence] = field(default_factory=dict)
    actors: Mapping[str, ChildRecord] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    """Tasks by status."""
    ready: int = 0
    pinned: int = 0
    delayed: int = 0
    pinned_to: Mapping[str, int] = field(default_factory=dict)
    """Nova → how many tasks aimed at it may start; empty when nobody looked."""
    next_due_ms: int = 0
    """When the first delayed task may start; 0 for none."""
    permits: Permits | None = None
    """None when nobody looked."""

    @property
    def pending(self) -> int:
        """How many tasks are pending."""
        return self.counts.get("pending", 0)

    @property
    def after_others(self) -> int:
        """How many pending tasks wait for other tasks: those that are in no set of the queue."""
        return max(0, self.pending - self.ready - self.pinned - self.delayed)


class Line(NamedTuple):
    """A pending task's place among those that may start."""

    ahead: int
    """How many come before it, at least for whoever may take it first."""
    next_for: frozenset[str]
    """The Novas whose next claim takes it, if they make one now."""


@dataclass(frozen=True, slots=True)
class TaskEvidence:
    """One task at one moment."""

    task_id: str
    title: str
    state: TaskState
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Of the specification: `at`, `deadline` and `approval`, where it has them."""
    events: tuple[Event, ...] = ()
    result: Mapping[str, Any] = field(default_factory=dict)
    due_ms: int | None = None
    """Until when it is delayed; None when it is not."""
    lease_ms: int | None = None
    line: Line | None = None
    """None when it is not among those that may start."""
    waits_for: tuple[str, ...] = ()
    """Those it comes after that are not completed."""
    cause: TaskEvidence | None = None
    """Of those the one that decides: followed further, its own `cause` leads to the root."""

    def last(self, *events: str) -> Event | None:
        """The last event of these kinds in its history."""
        for event in reversed(self.events):
            if event.event in events:
                return event
        return None
