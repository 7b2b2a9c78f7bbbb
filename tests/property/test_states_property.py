"""Random walks over the workflow table keep what the fleet's safety rests on."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from novawf.errors import IllegalTransition
from novawf.workflow.state_data import StateData
from novawf.workflow.states import INITIAL, PAUSABLE, TRANSITIONS, Event, State, advance

OWING = (State.TASK_EXECUTION, State.PROGRESS_UPDATE)
"""States in which a claimed task has no result on record yet."""


class Walk(RuleBasedStateMachine):
    """A Nova that meets any event at any time, crashes, and is reloaded from its hash."""

    def __init__(self) -> None:
        super().__init__()
        self.data = StateData()
        self.records_owed = 0

    @rule(event=st.sampled_from(Event))
    def meet(self, event: Event) -> None:
        before = self.data.current_state
        try:
            after = advance(before, event)
        except IllegalTransition:
            assert (before, event) not in TRANSITIONS
            return
        self.data.current_state = after
        if event is Event.WORK_FOUND:
            self.records_owed += 1
        elif before in OWING and event in (Event.RECORDED, Event.FAILED):
            self.records_owed -= 1

    @rule()
    def crash_and_reload(self) -> None:
        flat = self.data.to_hash()
        old = StateData.from_hash(dict(zip(flat[::2], flat[1::2], strict=True)))
        assert old == self.data
        self.data = StateData(resumed_from=old.current_state)
        self.records_owed = 0

    @precondition(lambda self: self.data.current_state in PAUSABLE)
    @rule()
    def an_unsafe_verdict_pauses(self) -> None:
        assert advance(self.data.current_state, Event.UNSAFE) is State.SAFETY_PAUSE

    @invariant()
    def a_failure_is_always_answered(self) -> None:
        assert advance(self.data.current_state, Event.FAILED) is State.ERROR_RECOVERY

    @invariant()
    def one_record_is_owed_exactly_while_a_task_is_in_hand(self) -> None:
        assert self.records_owed == int(self.data.current_state in OWING)

    @invariant()
    def a_paused_or_broken_nova_starts_work_only_by_way_of_discovery(self) -> None:
        if self.data.current_state in (State.SAFETY_PAUSE, State.ERROR_RECOVERY, INITIAL):
            reachable = {t for (s, _), t in TRANSITIONS.items() if s is self.data.current_state}
            assert State.TASK_EXECUTION not in reachable

    @invariant()
    def no_state_is_a_dead_end(self) -> None:
        assert any(
            target is not self.data.current_state
            for (source, event), target in TRANSITIONS.items()
            if source is self.data.current_state and event is not Event.FAILED
        )


TestWalk = Walk.TestCase
