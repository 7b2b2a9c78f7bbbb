"""Whose next claim takes what: the choice of the claim script, made again without taking anything.

The rule is `tasks/scripts/claiming.lua`'s (`head` and `claim_next`): delayed tasks whose time has
come join the line first, sixteen at a time; a Nova takes the first of all that may run anywhere or
the first of those aimed at it, whichever has the lower score, its own first when they are equal;
what is past its deadline is passed over. The property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from novawf.tasks.state import TaskState

PROMOTED = 16
"""How many delayed tasks join the line in one claim."""
LOOKED_AT = 16
"""How many one claim looks at before it says that there is nothing."""


class Entry(NamedTuple):
    """One task in line; entries sort as the store's sets do."""

    score: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Heads:
    """The first of each line, as many as a claim may look at."""

    ready: Sequence[Entry] = ()
    pinned: Mapping[str, Sequence[Entry]] = field(default_factory=dict)
    """Nova → what is aimed at it."""
    due: Sequence[tuple[str, TaskState]] = ()
    """Delayed tasks whose time has come, the earliest first."""
    late: frozenset[str] = frozenset()
    """Tasks past their deadline."""

    def after_promotion(self, nova: str) -> tuple[list[Entry], list[Entry]]:
        """What may run anywhere, and what is aimed at `nova`, once the due ones have joined."""
        anywhere, mine = list(self.ready), list(self.pinned.get(nova, ()))
        for task_id, state in self.due[:PROMOTED]:
            if state.status != "pending":
                continue
            entry = Entry(score_of(state), task_id)
            if not state.target:
                anywhere.append(entry)
            elif state.target == nova:
                mine.append(entry)
        return sorted(anywhere), sorted(mine)

    def next_for(self, nova: str) -> str | None:
        """The task that a claim by `nova` takes; None for nothing."""
        anywhere, mine = self.after_promotion(nova)
        for _ in range(LOOKED_AT):
            line = (
                mine if mine and (not anywhere or mine[0].score <= anywhere[0].score) else anywhere
            )
            if not line:
                return None
            entry = line.pop(0)
            if entry.task_id not in self.late:
                return entry.task_id
        return None


def score_of(state: TaskState) -> int:
    """Where a task that may start stands in the order."""
    return state.ready_ms + state.tier_ms


def pinned_entry(member: str) -> Entry | None:
    """The entry behind a member of the pinned set, `nova|score|task id`."""
    _, score, task_id = (*member.split("|", 2), "", "")[:3]
    return Entry(int(score), task_id) if score.isdigit() and task_id else None


def entries(scored: Iterable[tuple[str, float]]) -> list[Entry]:
    """Entries of a set read with its scores."""
    return [Entry(int(score), task_id) for task_id, score in scored]
