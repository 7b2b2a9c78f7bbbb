"""Which phase follows which."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from novawf.workflow import phases
from novawf.workflow.config import PhaseSettings
from novawf.workflow.phases import Phase, next_phase, phase_due


def walk(settings: PhaseSettings, steps: int) -> list[Phase]:
    """The first `steps` phases of a Nova."""
    current, work_done, seen = phases.INITIAL, 0, [phases.INITIAL]
    while len(seen) < steps:
        work_done += current is not Phase.PERSONAL
        current = next_phase(current, settings, work_done)
        seen.append(current)
    return seen


def test_work_phases_alternate_when_there_is_no_personal_phase():
    assert walk(PhaseSettings(), 5) == [
        Phase.WORK_1,
        Phase.WORK_2,
        Phase.WORK_1,
        Phase.WORK_2,
        Phase.WORK_1,
    ]


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_a_personal_phase_comes_after_every_so_many_work_phases(every: int):
    seen = walk(PhaseSettings(personal_every=every), 60)
    for place, phase in enumerate(seen, start=1):
        assert (phase is Phase.PERSONAL) == (place % (every + 1) == 0)


@pytest.mark.parametrize("every", [0, 1, 2, 3, 7])
def test_work_phases_keep_alternating_across_personal_ones(every: int):
    work = [p for p in walk(PhaseSettings(personal_every=every), 60) if p is not Phase.PERSONAL]
    assert work[::2] == [Phase.WORK_1] * len(work[::2])
    assert work[1::2] == [Phase.WORK_2] * len(work[1::2])


def test_a_nova_without_history_goes_to_the_other_work_phase():
    assert next_phase(Phase.WORK_2, PhaseSettings(personal_every=3), 0) is Phase.WORK_1


@pytest.mark.parametrize(("done", "due"), [(0, False), (9, False), (10, True), (11, True)])
def test_a_phase_is_due_once_its_share_of_tasks_is_completed(done: int, due: bool):
    assert phase_due(done, PhaseSettings()) is due


@pytest.mark.parametrize("wrong", [{"tasks_per_phase": 0}, {"personal_every": -1}, {"x": 1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValidationError):
        PhaseSettings.model_validate(wrong)
