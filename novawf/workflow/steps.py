"""What a Nova does in each of its nine states. The table of the moves is `states.py`.

What it has of the queue, and what it owes it, is `in_hand.py`'s; how short tasks follow each other
without a pause is `series.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from novawf.clock import Clock, monotonic_s
from novawf.completion.config import CompletionSettings
from novawf.completion.pause import completion_pause_s
from novawf.completion.routine import CompletionRoutine, EndedBy
from novawf.completion.transition import Upcoming
from novawf.executors.base import Outcome
from novawf.tasks.claims import Beat, Claimant, Halted, Nothing
from novawf.tasks.model import WorkType
from novawf.work.idling import IdleWork
from novawf.workflow.attempt import Attempt, AttemptRunner
from novawf.workflow.config import PhaseSettings
from novawf.workflow.cycle import Handler
from novawf.workflow.in_hand import InHand
from novawf.workflow.phases import Phase, next_phase, phase_due
from novawf.workflow.series import Series, Tempo
from novawf.workflow.state_data import StateData
from novawf.workflow.states import Event, State
from novawf.workflow.verdict_view import VerdictView
from novawf.workflow.waking import WorkWaiter

log = logging.getLogger("novawf.workflow")

PAUSED_LOOK_S = 0.5
"""How often a paused Nova asks whether it may go on."""

LOOK_AGAIN_S = 300.0
"""The longest that an idle Nova relies on tokens and heartbeats alone."""

_RECOVERY_S = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses before successive attempts to recover, until a look for work succeeds; the last one
repeats (a store that is away, a key of another type)."""


Rest = Literal["on", "over", "work"]
"""How a rest stands: it goes on, its time is over (or the Nova drains), or work ended it."""


class Steps:
    """The handlers of one Nova, and what they hand from one to the next."""

    def __init__(
        self,
        *,
        data: StateData,
        clock: Clock,
        claimant: Claimant,
        runner: AttemptRunner,
        waiter: WorkWaiter,
        verdict: VerdictView,
        phases: PhaseSettings,
        completion: CompletionSettings,
        routine: CompletionRoutine,
        idle_work: IdleWork,
        pace: float,
        rhythm_s: Callable[[], float],
        jitter: Callable[[], float],
        beat: Callable[[], Awaitable[Beat]],
        settled: Callable[[], None],
        reported: Callable[[], Awaitable[None]],
    ) -> None:
        self.data = data
        self.clock = clock
        self.claimant = claimant
        self.waiter = waiter
        self.verdict = verdict
        self.phases = phases
        self.completion = completion
        self.routine = routine
        self.idle_work = idle_work
        self.pace = pace
        self.rhythm_s = rhythm_s
        self.jitter = jitter
        self.beat = beat
        self.settled = settled
        self.interrupt = asyncio.Event()
        self.look = asyncio.Event()
        """Set to end a pause for safety at once: what it waits for may be over."""
        self.draining = False
        self.in_hand = InHand(
            data, clock, claimant, waiter, verdict, self._task_completed, routine.doubt
        )
        self.series = Series(
            self.in_hand,
            runner,
            Tempo(claimant.settings.series_ms / 1000),
            begun=self._begun,
            may_go_on=self._may_go_on,
            reported=reported,
            settled=settled,
        )
        self._failures = 0
        """Failures, and claims refused, since a look for work succeeded."""
        self._completed = ""
        """Id of the task that was completed last, until the completion routine has rested."""
        self._personal_s: tuple[float, float] | None = None
        """When the personal phase began and when it ends, monotonic; None: not in this life."""

    def handlers(self) -> dict[State, Handler]:
        """State → what to do in it."""
        return {
            State.INITIALIZING: self._initializing,
            State.STREAM_CHECK: self._stream_check,
            State.WORK_DISCOVERY: self._work_discovery,
            State.TASK_EXECUTION: self._task_execution,
            State.PROGRESS_UPDATE: self._progress_update,
            State.COMPLETION_ROUTINE: self._completion_routine,
            State.PHASE_TRANSITION: self._phase_transition,
            State.ERROR_RECOVERY: self._error_recovery,
            State.SAFETY_PAUSE: self._safety_pause,
        }

    @property
    def attempt(self) -> Attempt | None:
        """The task that is being executed or recorded."""
        return self.in_hand.attempt

    @property
    def idle(self) -> bool:
        """Whether nothing is in hand."""
        return self.in_hand.empty

    @property
    def may_leave(self) -> bool:
        """Whether a Nova that drains may end: idle, and no claim on its way to the store."""
        return self.draining and self.idle and not self.waiter.asked

    def upcoming(self) -> Upcoming:
        """What comes next, as far as the Nova knows: for the plan of the completion routine."""
        hand = self.in_hand
        claim = hand.attempt.claim if hand.attempt else hand.held[0] if hand.held else None
        return Upcoming(
            task_id=claim.task_id if claim is not None else "",
            title=claim.spec["title"][:200] if claim is not None else "",
            next_due_ms=hand.nothing.next_due_ms,
            phase=self.data.current_phase.value,
            tasks_in_phase=self.data.tasks_completed_in_phase,
            phase_due=phase_due(self.data.tasks_completed_in_phase, self.phases),
            draining=self.draining,
        )

    async def _initializing(self) -> Event:
        self.verdict.learn(await self.beat())
        return Event.READY

    async def _stream_check(self) -> Event:
        self.data.last_stream_check = self.clock.now_ms()
        return Event.CHECKED

    async def _work_discovery(self) -> Event:
        orders, began_s = self.verdict.orders, monotonic_s()
        event = await self._find_work()
        if self.verdict.overtaken(orders) and self.in_hand.attempt is not None:
            self.in_hand.undo_begin()  # to be handed back
            event = Event.UNSAFE
        if event is Event.UNSAFE:
            self._failures += 1
        elif (
            event is Event.WORK_FOUND
            or not self.waiter.reading
            or monotonic_s() - began_s >= _RECOVERY_S[-1]
        ):  # else the wait was cut short, and its failure may only not have been heard yet
            self._failures = 0
        return event

    async def _find_work(self) -> Event:
        if self.data.current_phase is Phase.PERSONAL:
            return await self._personal_phase()
        hand = self.in_hand
        if not hand.held and (not self.draining or hand.claim_unanswered):
            event = await self._look() if self._is_time_to_look() else Event.NO_WORK
            if event is Event.NO_WORK:
                await self._nothing_yet()
                if self.waiter.answer_came:  # what ended the wait brought its task along
                    event = await self._look()
            if event is not Event.WORK_FOUND:
                return event
        if self.draining or (hand.begin() is None and hand.held):  # it was taken too long ago
            await hand.hand_back()
        return Event.WORK_FOUND if hand.attempt is not None else Event.NO_WORK

    async def _task_execution(self) -> Event:
        self.settled()
        await self.series.run()
        return Event.WORK_ENDED

    def _begun(self, attempt: Attempt) -> None:
        claim = attempt.claim
        self.idle_work.worked(claim.spec.get("work_type", WorkType.EXPLICIT))
        self.data.tool_use_count += 1
        self.data.task_in_hand = claim.task_id

    def _may_go_on(self) -> bool:
        """Whether the next task may follow at once, within a series."""
        if self.draining or self.verdict.unsafe_reason() is not None:
            return False
        if phase_due(self.data.tasks_completed_in_phase, self.phases):
            data = self.data
            after = next_phase(data.current_phase, self.phases, data.work_phases_completed + 1)
            if after is Phase.PERSONAL:
                return False
            self._change_phase()
        return True

    async def _progress_update(self) -> Event:
        self.in_hand.end(self.jitter())
        await self._record()
        return Event.RECORDED

    async def _record(self) -> None:
        """Tell the queue how attempts ended; take the next task along where none is in hand."""
        hand = self.in_hand
        while hand.owes:  # also of what is cancelled meanwhile: nothing else might tell of it
            ready = not self.draining and self.verdict.unsafe_reason() is None
            await hand.record(int(ready and not hand.held))

    def _task_completed(self, attempt: Attempt) -> None:
        if attempt.outcome is not None:
            # Here, and not in the routine's own state, which a failure leaves out.
            self._completed = attempt.claim.task_id
            self.data.last_completion_celebration = self.clock.now_ms()
            self.data.tasks_completed_in_phase += 1
            self.routine.completed(attempt.claim, attempt.outcome)

    async def _completion_routine(self) -> Event:
        completed, self._completed = self._completed, ""
        if completed and not self.in_hand.held and not self.draining:
            pause_s = completion_pause_s(
                self.completion, self.pace, reflecting=self.routine.reflects_on(completed)
            )
            until_s = monotonic_s() + pause_s
            while await self._rest(until_s) == "on":
                pass
        if phase_due(self.data.tasks_completed_in_phase, self.phases):
            return Event.PHASE_DUE
        return Event.ROUTINE_DONE

    async def _rest(self, until_s: float) -> Rest:
        """Rest for a while, at most until then (monotonic). A token or a due time is a hint that
        may be stale, so the queue itself tells whether there is work."""
        left_s = until_s - monotonic_s()
        if self.draining or left_s <= 0:
            return "over"
        hand = self.in_hand
        if not hand.held and (self.waiter.asked or not hand.claim_unanswered):
            if hand.looked_s:  # else the queue was not empty when it was asked last
                hand.woken = await self._wait_for_work(hand.nothing, left_s)
                nothing = hand.nothing
                due = nothing.leases_expired or 0 < nothing.next_due_ms <= self.clock.now_ms()
                if self.draining or not (hand.woken or hand.work_waits or due):
                    return "on"
            taken = await hand.take()
            if isinstance(taken, Halted):
                self.verdict.halt(taken)
            elif not taken:
                hand.woken = False
                return "on"
        return "work"

    async def _phase_transition(self) -> Event:
        self._change_phase()
        if self.data.current_phase is Phase.PERSONAL:
            began_s = monotonic_s()
            self._personal_s = (began_s, began_s + self.phases.personal_s * self.pace)
        return Event.PHASE_CHANGED

    def _change_phase(self) -> None:
        data = self.data
        if data.current_phase is not Phase.PERSONAL:
            data.work_phases_completed += 1
        data.current_phase = next_phase(data.current_phase, self.phases, data.work_phases_completed)
        data.tasks_completed_in_phase = 0

    async def _personal_phase(self) -> Event:
        """Take no work of the fleet for a while, unless there is some: any of it ends the phase.

        A life that a crash brought into the phase ends it at once: its time has been.
        """
        began_s, ends_s = self._personal_s or (0.0, 0.0)
        rest = await self._rest(ends_s)
        if rest == "on":
            return Event.NO_WORK  # safety looks in between, then the phase goes on
        if self._personal_s is not None:
            self._personal_s = None
            ended_by: EndedBy = "drain" if self.draining else "work" if rest == "work" else "time"
            self.routine.personal_phase_over(monotonic_s() - began_s, ended_by)
        return Event.PHASE_DUE

    async def _error_recovery(self) -> Event:
        self._failures += 1
        self.settled()
        await asyncio.sleep(self._recovery_s())  # not cut short by a drain: that would spin
        await self.waiter.close()
        self.verdict.learn(await self.beat())
        attempt = self.in_hand.attempt
        if attempt is not None and attempt.outcome is None:
            # The executor itself failed: our fault, not the task's.
            attempt.outcome = Outcome(
                ok=False, cause="lost", error="the executor failed: see the Nova's log"
            )
        if attempt is not None:
            self.in_hand.end(self.jitter())
        await self._record()
        return Event.RECOVERED

    def _recovery_s(self) -> float:
        """None after the first failure, then growing: what goes on failing must not spin."""
        return _RECOVERY_S[min(max(0, self._failures - 1), len(_RECOVERY_S) - 1)]

    async def _safety_pause(self) -> Event:
        hand = self.in_hand
        if hand.claim_unanswered:
            await hand.take()
        await hand.hand_back()
        if hand.woken:  # the work that woke this Nova is for another now
            hand.woken = False
            await self.claimant.pass_on_wake()
        await self.waiter.close()
        self.look.clear()  # what is heard from here on, the beat may not know of
        self.verdict.learn(await self.beat())
        if self.verdict.unsafe_reason() is None:
            await self._pause(self._recovery_s())  # a claim may be refused for other reasons
            return Event.SAFE
        await self._pause(PAUSED_LOOK_S)
        return Event.UNSAFE

    def _is_time_to_look(self) -> bool:
        """Whether the queue may have something since it last had nothing.

        Who is idle is told of work by a token; of lost tokens by its own heartbeat.
        """
        hand = self.in_hand
        nothing = hand.nothing
        return (
            hand.woken
            or hand.work_waits
            or (hand.claim_unanswered and (self.draining or not self.waiter.asked))
            or nothing.leases_expired
            or 0 < nothing.next_due_ms <= self.clock.now_ms()
            or not hand.looked_s
            or monotonic_s() - hand.looked_s >= LOOK_AGAIN_S
        )

    async def _look(self) -> Event:
        """Ask the queue: WORK_FOUND (then it is in hand), NO_WORK or UNSAFE."""
        taken = await self.in_hand.take()
        if isinstance(taken, Halted):
            self.verdict.halt(taken)
            return Event.UNSAFE
        self.verdict.confirm()
        return Event.WORK_FOUND if taken else Event.NO_WORK

    async def _nothing_yet(self) -> None:
        """Find work for idle time, or wait for other work."""
        hand = self.in_hand
        if self.draining or not await self.idle_work.look():
            hand.woken = await self._wait_for_work(hand.nothing, self._idle_pause_s())
        else:
            hand.work_waits = True

    def _idle_pause_s(self) -> float:
        """The rhythm's pause, cut by the time of the next look for work."""
        look_in_s = self.idle_work.due_in_s()
        rhythm_s = self.rhythm_s()
        return rhythm_s if look_in_s is None else min(rhythm_s, look_in_s)

    async def _wait_for_work(self, nothing: Nothing, rhythm_s: float) -> bool:
        """Wait for a wake token, the next due time, or the end of the pause: work never waits."""
        wait_s = min(rhythm_s, self.claimant.settings.idle_wait_s)
        if nothing.leases_expired:
            wait_s = min(wait_s, PAUSED_LOOK_S)  # the supervisor frees them; look again soon
        elif nothing.next_due_ms:
            wait_s = min(wait_s, max(0.001, (nothing.next_due_ms - self.clock.now_ms()) / 1000))
        self.settled()
        asks = self.waiter.ask is not None and not self.interrupt.is_set()
        self.in_hand.claim_unanswered |= asks  # also when the wait is cut short by a failure
        woken = await self.waiter.wait(wait_s, self.interrupt)
        self.in_hand.claim_unanswered = self.waiter.asked or self.waiter.answer_came
        return woken

    async def _pause(self, pause_s: float) -> None:
        self.settled()
        if pause_s <= 0 or self.interrupt.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):  # 3.11's wait_for can lose a cancellation
                await self.look.wait()
