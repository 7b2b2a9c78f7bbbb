"""One step of a Nova: safety first, the handler of the state, the transition, persist.

The cycle knows neither the store nor executors: what a state does is its handler's business, and
persisting is a call that it is given. Whatever a handler raises becomes `error_recovery`; only
`Fenced` goes through, because a Nova whose identity belongs to another must stop.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from novawf.errors import Fenced
from novawf.workflow.state_data import StateData
from novawf.workflow.states import PAUSABLE, Event, State, advance

log = logging.getLogger("novawf.workflow")

Handler = Callable[[], Awaitable[Event]]


class SafetyCheck(Protocol):
    """Tells whether the next step may begin."""

    def unsafe_reason(self) -> str | None:
        """Why nothing may start, or None. Anything it raises counts as unsafe."""


class Cycle:
    """Runs the steps of one Nova over its `StateData`."""

    def __init__(
        self, data: StateData, handlers: Mapping[State, Handler], safety: SafetyCheck
    ) -> None:
        missing = set(State) - set(handlers)
        if missing:
            raise ValueError(f"no handler for {', '.join(sorted(missing))}")
        self.data = data
        self.handlers = handlers
        self.safety = safety
        self.last_error = ""

    async def execute_cycle(self) -> Event:
        """One step; returns the event that came of it. Raises Fenced and nothing else."""
        data = self.data
        event = self._check_safety()
        if event is None:
            try:
                event = await self.handlers[data.current_state]()
            except Fenced:
                raise
            except Exception as error:
                self.last_error = f"{type(error).__name__}: {error}"
                log.warning("%s failed: %s", data.current_state, self.last_error)
                event = Event.FAILED
        data.current_state = advance(data.current_state, event)
        data.total_cycles_completed += 1
        return event

    def _check_safety(self) -> Event | None:
        """UNSAFE where the state may pause and the verdict is not known to be good."""
        state = self.data.current_state
        try:
            reason = self.safety.unsafe_reason()
        except Exception as error:
            reason = f"the safety check failed: {type(error).__name__}: {error}"
        self.data.safety_status = "safe" if reason is None else reason
        if reason is None or state not in PAUSABLE or state is State.SAFETY_PAUSE:
            return None
        return Event.UNSAFE
