"""One step of a Nova: safety first, no silent death, and every event lands where the table says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from novawf.errors import Fenced, IllegalTransition, LeaseLost
from novawf.workflow.cycle import Cycle, Handler
from novawf.workflow.state_data import StateData
from novawf.workflow.states import PAUSABLE, TRANSITIONS, Event, State


class Verdict:
    """Says what the test wants; an exception is raised."""

    def __init__(self, says: str | Exception | None = None) -> None:
        self.says = says

    def unsafe_reason(self) -> str | None:
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class Ran(list[State]):
    """Handlers that note that they ran, then answer or raise what the test wants."""

    def handlers(self, does: Event | BaseException) -> Mapping[State, Handler]:
        def handler(state: State) -> Handler:
            async def run() -> Event:
                self.append(state)
                if isinstance(does, BaseException):
                    raise does
                return does

            return run

        return {state: handler(state) for state in State}


def cycle_in(
    state: State, does: Event | BaseException, says: str | Exception | None = None
) -> tuple[Cycle, Ran]:
    ran = Ran()
    return Cycle(StateData(current_state=state), ran.handlers(does), Verdict(says)), ran


@pytest.mark.parametrize(("state", "event"), sorted(TRANSITIONS))
async def test_each_event_leads_where_the_table_says(state: State, event: Event) -> None:
    cycle, ran = cycle_in(state, event)
    assert await cycle.execute_cycle() is event
    assert ran == [state]
    assert cycle.data.current_state is TRANSITIONS[state, event]
    assert cycle.data.total_cycles_completed == 1


@pytest.mark.parametrize(
    ("state", "event"),
    sorted(
        (state, event) for state in State for event in Event if (state, event) not in TRANSITIONS
    ),
)
async def test_an_event_that_the_table_does_not_know_changes_nothing(
    state: State, event: Event
) -> None:
    cycle, _ = cycle_in(state, event)
    with pytest.raises(IllegalTransition):
        await cycle.execute_cycle()
    assert cycle.data.current_state is state
    assert cycle.data.total_cycles_completed == 0


@pytest.mark.parametrize("state", sorted(PAUSABLE - {State.SAFETY_PAUSE}))
@pytest.mark.parametrize("says", ["stopped: drill", "", RuntimeError("no answer"), KeyError("x")])
async def test_nothing_begins_while_it_is_unsafe_or_the_check_raises(
    state: State, says: str | Exception
) -> None:
    cycle, ran = cycle_in(state, Event.CHECKED, says)
    assert await cycle.execute_cycle() is Event.UNSAFE
    assert ran == []
    assert cycle.data.current_state is State.SAFETY_PAUSE
    assert cycle.data.safety_status != "safe"


@pytest.mark.parametrize("state", sorted(set(State) - PAUSABLE | {State.SAFETY_PAUSE}))
async def test_what_has_begun_is_ended_though_it_is_unsafe(state: State) -> None:
    """A result that is owed must be recorded, and a pause must be able to end."""
    event = next(event for known, event in sorted(TRANSITIONS) if known is state)
    cycle, ran = cycle_in(state, event, "stopped: drill")
    assert await cycle.execute_cycle() is event
    assert ran == [state]
    assert cycle.data.safety_status == "stopped: drill"


async def test_the_status_says_why_a_check_failed() -> None:
    cycle, _ = cycle_in(State.STREAM_CHECK, Event.CHECKED, RuntimeError("no answer"))
    await cycle.execute_cycle()
    assert cycle.data.safety_status == "the safety check failed: RuntimeError: no answer"


async def test_the_status_is_safe_again_once_it_is() -> None:
    cycle, _ = cycle_in(State.SAFETY_PAUSE, Event.SAFE)
    cycle.data.safety_status = "paused"
    await cycle.execute_cycle()
    assert cycle.data.safety_status == "safe"


@pytest.mark.parametrize("state", sorted(State))
@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), ConnectionError("gone"), RecursionError(), TimeoutError()]
)
async def test_any_exception_leads_to_error_recovery(state: State, error: Exception) -> None:
    cycle, _ = cycle_in(state, error)
    assert await cycle.execute_cycle() is Event.FAILED
    assert cycle.data.current_state is State.ERROR_RECOVERY
    assert cycle.last_error == f"{type(error).__name__}: {error}"
    assert cycle.data.total_cycles_completed == 1


@pytest.mark.parametrize("error", [Fenced("a newer owner"), LeaseLost("gone")])
async def test_a_fenced_nova_hears_of_it_and_stays_where_it_is(error: Fenced) -> None:
    cycle, _ = cycle_in(State.PROGRESS_UPDATE, error)
    with pytest.raises(type(error)):
        await cycle.execute_cycle()
    assert cycle.data.current_state is State.PROGRESS_UPDATE


@pytest.mark.parametrize("ending", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(1)])
async def test_a_request_to_end_is_no_error_to_recover_from(ending: BaseException) -> None:
    cycle, _ = cycle_in(State.TASK_EXECUTION, ending)
    with pytest.raises(type(ending)):
        await cycle.execute_cycle()
    assert cycle.data.current_state is State.TASK_EXECUTION


def test_a_state_without_a_handler_is_refused_before_anything_runs() -> None:
    handlers = dict(Ran().handlers(Event.CHECKED))
    del handlers[State.SAFETY_PAUSE], handlers[State.INITIALIZING]
    with pytest.raises(ValueError, match="no handler for initializing, safety_pause"):
        Cycle(StateData(), handlers, Verdict())
