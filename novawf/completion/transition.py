"""Transition planning: what comes after a completion, as one small record.

The plan is a fact about the Nova's work, not a private insight, so its record goes to the Nova's
status stream: reports may use it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Next = Literal["task", "due", "wait", "phase", "drain"]
"""A task is in hand; one falls due later; nothing is known; the phase ends; the Nova drains."""


class Upcoming(NamedTuple):
    """What the Nova knows of its next steps."""

    task_id: str = ""
    title: str = ""
    """Of the task in hand; empty when there is none."""
    next_due_ms: int = 0
    """Fleet ms when something falls due; 0 unknown."""
    phase: str = ""
    tasks_in_phase: int = 0
    phase_due: bool = False
    draining: bool = False


class Plan(NamedTuple):
    """What a transition record says."""

    next: Next
    next_task: str
    next_title: str
    due_in_s: float | None


def plan(upcoming: Upcoming, now_ms: int) -> Plan:
    """What to do next, the most certain first. `now_ms` is fleet time."""
    if upcoming.draining and not upcoming.task_id:
        return Plan("drain", "", "", None)
    if upcoming.task_id:
        return Plan("task", upcoming.task_id, upcoming.title, None)
    if upcoming.phase_due:
        return Plan("phase", "", "", None)
    if upcoming.next_due_ms:
        return Plan("due", "", "", max(0, upcoming.next_due_ms - now_ms) / 1000)
    return Plan("wait", "", "", None)
