"""The three phases of a Nova's day and which follows which, in one table.

The two work phases alternate; a personal phase, when switched on, comes after every so many work
phases and is followed by the work phase whose turn it was. It decides and does nothing: what a
Nova does differently in a phase is the cycle's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from novawf.workflow.config import PhaseSettings


class Phase(StrEnum):
    """What the current stretch of work is for (spec §1)."""

    WORK_1 = "work_phase_1"
    WORK_2 = "work_phase_2"
    PERSONAL = "personal_phase"


class Turn(StrEnum):
    """Whose turn it is: a personal phase, or work after the work phase that ended last."""

    AFTER_WORK_1 = "after_work_1"
    AFTER_WORK_2 = "after_work_2"
    PERSONAL_DUE = "personal_due"


INITIAL = Phase.WORK_1
"""The first phase of a Nova that has no past."""

PHASES: Mapping[tuple[Phase, Turn], Phase] = MappingProxyType(
    {
        (Phase.WORK_1, Turn.AFTER_WORK_1): Phase.WORK_2,
        (Phase.WORK_1, Turn.PERSONAL_DUE): Phase.PERSONAL,
        (Phase.WORK_2, Turn.AFTER_WORK_2): Phase.WORK_1,
        (Phase.WORK_2, Turn.PERSONAL_DUE): Phase.PERSONAL,
        (Phase.PERSONAL, Turn.AFTER_WORK_1): Phase.WORK_2,
        (Phase.PERSONAL, Turn.AFTER_WORK_2): Phase.WORK_1,
    }
)
"""(phase, turn) → next phase; the pairs that are not here cannot come up."""


def phase_due(tasks_completed_in_phase: int, settings: PhaseSettings) -> bool:
    """Whether the phase has had its share of tasks."""
    return tasks_completed_in_phase >= settings.tasks_per_phase


def next_phase(current: Phase, settings: PhaseSettings, work_phases_completed: int) -> Phase:
    """The phase after `current`.

    `work_phases_completed` is the Nova's history: the work phases that ended since it first
    started, `current` included when that is one. Work begins with phase 1, so an odd number means
    that phase 1 ended last.
    """
    return PHASES[current, _turn(current, settings, work_phases_completed)]


def _turn(current: Phase, settings: PhaseSettings, work_phases_completed: int) -> Turn:
    if current is Phase.PERSONAL:
        return Turn.AFTER_WORK_1 if work_phases_completed % 2 else Turn.AFTER_WORK_2
    every = settings.personal_every
    if every and work_phases_completed and work_phases_completed % every == 0:
        return Turn.PERSONAL_DUE
    return Turn.AFTER_WORK_1 if current is Phase.WORK_1 else Turn.AFTER_WORK_2
