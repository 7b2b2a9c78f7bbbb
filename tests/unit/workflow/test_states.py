"""The transition table of a Nova, cell by cell."""

from __future__ import annotations

import pytest

from novawf.errors import IllegalTransition
from novawf.workflow.states import INITIAL, PAUSABLE, TRANSITIONS, Event, State, advance

EXPECTED = """
initializing ready stream_check
stream_check checked work_discovery
work_discovery work_found task_execution
work_discovery no_work stream_check
work_discovery phase_due phase_transition
task_execution work_ended progress_update
progress_update recorded completion_routine
completion_routine routine_done work_discovery
completion_routine phase_due phase_transition
phase_transition phase_changed stream_check
stream_check unsafe safety_pause
work_discovery unsafe safety_pause
phase_transition unsafe safety_pause
safety_pause unsafe safety_pause
safety_pause safe stream_check
error_recovery recovered stream_check
"""
CELLS = {
    (State(source), Event(event)): State(target)
    for source, event, target in (line.split() for line in EXPECTED.split("\n") if line)
} | {(state, Event.FAILED): State.ERROR_RECOVERY for state in State}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_cell_leads_where_the_specification_says_or_is_refused(state: State, event: Event):
    expected = CELLS.get((state, event))
    if expected is not None:
        assert advance(state, event) is expected
        return
    with pytest.raises(IllegalTransition) as refusal:
        advance(state, event)
    assert str(state) in str(refusal.value)
    assert str(event) in str(refusal.value)


def test_there_are_exactly_the_nine_states_of_the_specification():
    assert [str(state) for state in State] == [
        "initializing",
        "stream_check",
        "work_discovery",
        "task_execution",
        "progress_update",
        "completion_routine",
        "phase_transition",
        "error_recovery",
        "safety_pause",
    ]


def test_the_table_cannot_be_changed_at_run_time():
    with pytest.raises(TypeError):
        TRANSITIONS[State.INITIALIZING, Event.SAFE] = State.TASK_EXECUTION  # type: ignore[index]


def test_every_state_can_be_reached_from_the_first():
    reached = {INITIAL}
    while True:
        more = {target for (source, _), target in TRANSITIONS.items() if source in reached}
        if more <= reached:
            break
        reached |= more
    assert reached == set(State)


def test_work_is_entered_by_discovery_alone_so_that_no_task_starts_without_a_claim():
    entries = [key for key, target in TRANSITIONS.items() if target is State.TASK_EXECUTION]
    assert entries == [(State.WORK_DISCOVERY, Event.WORK_FOUND)]


def test_a_pause_never_interrupts_a_task_in_hand_nor_the_record_it_owes():
    assert {
        State.STREAM_CHECK,
        State.WORK_DISCOVERY,
        State.PHASE_TRANSITION,
        State.SAFETY_PAUSE,
    } == PAUSABLE
