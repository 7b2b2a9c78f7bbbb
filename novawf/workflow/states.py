"""The nine states of a Nova and every move between them, in one table.

It decides and does nothing: no handler, no store, no time. `cycle.py` runs the handler of the
current state, turns what came of it into one event and asks `advance` for the next state.

Why the table is as it is:

* A task is executed whole, then recorded, then celebrated: `task_execution`, `progress_update`
  and `completion_routine` form a chain that only a failure leaves.
* UNSAFE is an event of the states whose next step would begin something: a look at the streams,
  a claim, a new phase. Work that a claim has already let through the gate is ended by a
  cancellation, not by a transition; a result that is owed is recorded, or the task would run
  twice; and the completion routine always ends (spec §7). Each of these comes to a state that may
  pause within one step. `initializing` makes the Nova able to obey and is not skipped;
  `error_recovery` first puts things right. `PAUSABLE` lists the states that take UNSAFE.
* FAILED is an event of every state, error_recovery included: no failure is a silent death.
* PHASE_DUE comes after a completion, and from work_discovery so that an idle Nova may change
  phase too.
* A restarted Nova begins in `initializing` again, whatever it did before: what it had in hand is
  known by `StateData.resumed_from` and `task_in_hand`, so no event leads into the middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from novawf.errors import IllegalTransition


class State(StrEnum):
    """What a Nova is doing (spec §1)."""

    INITIALIZING = "initializing"
    STREAM_CHECK = "stream_check"
    WORK_DISCOVERY = "work_discovery"
    TASK_EXECUTION = "task_execution"
    PROGRESS_UPDATE = "progress_update"
    COMPLETION_ROUTINE = "completion_routine"
    PHASE_TRANSITION = "phase_transition"
    ERROR_RECOVERY = "error_recovery"
    SAFETY_PAUSE = "safety_pause"


class Event(StrEnum):
    """What came of one step."""

    READY = "ready"
    CHECKED = "checked"
    WORK_FOUND = "work_found"
    NO_WORK = "no_work"
    WORK_ENDED = "work_ended"
    RECORDED = "recorded"
    ROUTINE_DONE = "routine_done"
    PHASE_DUE = "phase_due"
    PHASE_CHANGED = "phase_changed"
    UNSAFE = "unsafe"
    SAFE = "safe"
    FAILED = "failed"
    RECOVERED = "recovered"


INITIAL = State.INITIALIZING
"""Where every process of a Nova begins."""

TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.INITIALIZING, Event.READY): State.STREAM_CHECK,
        (State.STREAM_CHECK, Event.CHECKED): State.WORK_DISCOVERY,
        (State.WORK_DISCOVERY, Event.WORK_FOUND): State.TASK_EXECUTION,
        (State.WORK_DISCOVERY, Event.NO_WORK): State.STREAM_CHECK,
        (State.WORK_DISCOVERY, Event.PHASE_DUE): State.PHASE_TRANSITION,
        (State.TASK_EXECUTION, Event.WORK_ENDED): State.PROGRESS_UPDATE,
        (State.PROGRESS_UPDATE, Event.RECORDED): State.COMPLETION_ROUTINE,
        (State.COMPLETION_ROUTINE, Event.ROUTINE_DONE): State.WORK_DISCOVERY,
        (State.COMPLETION_ROUTINE, Event.PHASE_DUE): State.PHASE_TRANSITION,
        (State.PHASE_TRANSITION, Event.PHASE_CHANGED): State.STREAM_CHECK,
        (State.STREAM_CHECK, Event.UNSAFE): State.SAFETY_PAUSE,
        (State.WORK_DISCOVERY, Event.UNSAFE): State.SAFETY_PAUSE,
        (State.PHASE_TRANSITION, Event.UNSAFE): State.SAFETY_PAUSE,
        (State.SAFETY_PAUSE, Event.UNSAFE): State.SAFETY_PAUSE,
        (State.SAFETY_PAUSE, Event.SAFE): State.STREAM_CHECK,
        (State.ERROR_RECOVERY, Event.RECOVERED): State.STREAM_CHECK,
        (State.INITIALIZING, Event.FAILED): State.ERROR_RECOVERY,
        (State.STREAM_CHECK, Event.FAILED): State.ERROR_RECOVERY,
        (State.WORK_DISCOVERY, Event.FAILED): State.ERROR_RECOVERY,
        (State.TASK_EXECUTION, Event.FAILED): State.ERROR_RECOVERY,
        (State.PROGRESS_UPDATE, Event.FAILED): State.ERROR_RECOVERY,
        (State.COMPLETION_ROUTINE, Event.FAILED): State.ERROR_RECOVERY,
        (State.PHASE_TRANSITION, Event.FAILED): State.ERROR_RECOVERY,
        (State.ERROR_RECOVERY, Event.FAILED): State.ERROR_RECOVERY,
        (State.SAFETY_PAUSE, Event.FAILED): State.ERROR_RECOVERY,
    }
)
"""(state, event) → next state. An entry that is not here is forbidden."""

PAUSABLE: frozenset[State] = frozenset(
    state for state, event in TRANSITIONS if event is Event.UNSAFE
)
"""The states in which an unsafe verdict pauses the Nova; in the others it waits one step."""


def advance(state: State, event: Event) -> State:
    """The state after `event`. Raises IllegalTransition where the table has no entry."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(
            f"workflow: state {state} does not know event {event}; the Nova stays in {state}"
        ) from None
