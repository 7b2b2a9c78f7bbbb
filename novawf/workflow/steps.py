"""What a Nova does in each of its nine states. The table of the moves is `states.py`.

The steps keep two promises across every failure: an attempt that has ended is recorded exactly
once (it is `owed` until the store has confirmed it), and a claim whose reply was lost, alone or at
the end of a finish, is asked for again under its old number, by a Nova that pauses or drains too:
the store may have put a task into its hands that nobody knows of.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from redis.exceptions import RedisError

from novawf.clock import Clock, monotonic_s
from novawf.completion.config import CompletionSettings
from novawf.completion.pause import completion_pause_s
from novawf.completion.routine import CompletionRoutine, EndedBy
from novawf.completion.transition import Upcoming
from novawf.errors import LeaseLost
from novawf.executors.base import Outcome
from novawf.tasks.claims import (
    NOT_MEASURED,
    Beat,
    Claim,
    Claimant,
    ClaimReply,
    Halted,
    Measured,
    Nothing,
)
from novawf.tasks.ending import Ending
from novawf.tasks.model import WorkType
from novawf.telemetry.buckets import LATENCY_US
from novawf.work.idling import IdleWork
from novawf.workflow.attempt import Attempt, AttemptRunner
from novawf.workflow.config import PhaseSettings
from novawf.workflow.cycle import Handler
from novawf.workflow.phases import Phase, next_phase, phase_due
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


@dataclass(slots=True)
class _Owed:
    """How an attempt ended, until the store has confirmed it."""

    attempt: Attempt
    ending: Ending
    sent: bool = False
    asked: bool = False
    """Whether the next task was asked for along with it: then every repeat asks too."""


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
        self.runner = runner
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
        self.reported = reported
        self.interrupt = asyncio.Event()
        self.draining = False
        self.attempt: Attempt | None = None
        self._following: Claim | None = None
        self._owed: _Owed | None = None
        self._claim_unanswered = False
        self._woken = False
        self._claim_took: Measured = NOT_MEASURED
        self._nothing = Nothing()
        self._looked_s = 0.0
        """When the queue last had nothing, monotonic; 0: it was not asked since."""
        self.work_waits = False
        """A heartbeat saw work that this Nova may take."""
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
    def idle(self) -> bool:
        """Whether nothing is in hand: no attempt, no claim, nothing owed to the store.

        A claim that waits behind the blocking read is nothing in hand; see `may_leave`.
        """
        return (
            self.attempt is None
            and self._following is None
            and self._owed is None
            and (self.waiter.asked or not self._claim_unanswered)
        )

    @property
    def may_leave(self) -> bool:
        """Whether a Nova that drains may end: idle, and no claim on its way to the store."""
        return self.draining and self.idle and not self.waiter.asked

    def upcoming(self) -> Upcoming:
        """What comes next, as far as the Nova knows: for the plan of the completion routine."""
        claim = self.attempt.claim if self.attempt is not None else self._following
        return Upcoming(
            task_id=claim.task_id if claim is not None else "",
            title=claim.spec["title"][:200] if claim is not None else "",
            next_due_ms=self._nothing.next_due_ms,
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
        orders = self.verdict.orders
        event = await self._find_work()
        if self.verdict.overtaken(orders) and self.attempt is not None:
            self._following, self.attempt = self.attempt.claim, None  # to be handed back
            event = Event.UNSAFE
        self._failures = self._failures + 1 if event is Event.UNSAFE else 0
        return event

    async def _find_work(self) -> Event:
        if self.data.current_phase is Phase.PERSONAL:
            return await self._personal_phase()
        if self._following is None and (not self.draining or self._claim_unanswered):
            event = await self._look() if self._is_time_to_look() else Event.NO_WORK
            if event is Event.NO_WORK:
                await self._nothing_yet()
                if self.waiter.answer_came:  # what ended the wait brought its task along
                    event = await self._look()
            if event is not Event.WORK_FOUND:
                return event
        if self.draining:
            await self._hand_back()
        if self._following is None:
            return Event.NO_WORK
        self.idle_work.worked(self._following.spec.get("work_type", WorkType.EXPLICIT))
        self.attempt, self._following = Attempt(self._following), None
        return Event.WORK_FOUND

    async def _task_execution(self) -> Event:
        attempt = self.attempt
        if attempt is None:
            return Event.WORK_ENDED
        self.data.tool_use_count += 1
        self.data.task_in_hand = attempt.claim.task_id
        self.settled()
        await self.runner.run(attempt)
        await self.reported()  # its last words come before its end
        return Event.WORK_ENDED

    async def _progress_update(self) -> Event:
        attempt, self.attempt = self.attempt, None
        self.data.task_in_hand = ""
        if attempt is not None and attempt.interruption != "lost":
            self._owed = _Owed(attempt, attempt.ending(self.claimant.settings, self.jitter()))
        if self._owed is not None:
            await self._record()
        return Event.RECORDED

    async def _completion_routine(self) -> Event:
        completed, self._completed = self._completed, ""
        if completed and self._following is None and not self.draining:
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
        if self._following is None and (self.waiter.asked or not self._claim_unanswered):
            self._woken = await self._wait_for_work(self._nothing, left_s)
            nothing = self._nothing
            due = nothing.leases_expired or 0 < nothing.next_due_ms <= self.clock.now_ms()
            if self.draining or not (self._woken or self.work_waits or due):
                return "on"
            reply = await self._claim()
            if isinstance(reply, Nothing):
                self._nothing, self._woken = reply, False
                return "on"
            if isinstance(reply, Halted):
                self.verdict.halt(reply)
            else:
                self._following = reply
        return "work"

    async def _phase_transition(self) -> Event:
        data = self.data
        if data.current_phase is not Phase.PERSONAL:
            data.work_phases_completed += 1
        data.current_phase = next_phase(data.current_phase, self.phases, data.work_phases_completed)
        data.tasks_completed_in_phase = 0
        if data.current_phase is Phase.PERSONAL:
            began_s = monotonic_s()
            self._personal_s = (began_s, began_s + self.phases.personal_s * self.pace)
        return Event.PHASE_CHANGED

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
        if self.attempt is not None:  # the executor itself failed: our fault, not the task's
            if self.attempt.outcome is None:
                self.attempt.outcome = Outcome(
                    ok=False, cause="lost", error="the executor failed: see the Nova's log"
                )
            attempt, self.attempt = self.attempt, None
            self.data.task_in_hand = ""
            if attempt.interruption != "lost":
                ending = attempt.ending(self.claimant.settings, self.jitter())
                self._owed = _Owed(attempt, ending)
        if self._owed is not None:
            await self._record()
        return Event.RECOVERED

    def _recovery_s(self) -> float:
        """None after the first failure, then growing: what goes on failing must not spin."""
        return _RECOVERY_S[min(max(0, self._failures - 1), len(_RECOVERY_S) - 1)]

    async def _safety_pause(self) -> Event:
        if self._claim_unanswered:
            reply = await self._claim()
            if isinstance(reply, Claim):
                self._following = reply
        await self._hand_back()
        if self._woken:  # the work that woke this Nova is for another now
            self._woken = False
            await self.claimant.pass_on_wake()
        await self.waiter.close()
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
        nothing = self._nothing
        return (
            self._woken
            or self.work_waits
            or (self._claim_unanswered and (self.draining or not self.waiter.asked))
            or nothing.leases_expired
            or 0 < nothing.next_due_ms <= self.clock.now_ms()
            or not self._looked_s
            or monotonic_s() - self._looked_s >= LOOK_AGAIN_S
        )

    async def _look(self) -> Event:
        """Ask the queue: WORK_FOUND (then it is `_following`), NO_WORK or UNSAFE."""
        reply = await self._claim()
        if isinstance(reply, Halted):
            self.verdict.halt(reply)
            return Event.UNSAFE
        self.verdict.confirm()
        if isinstance(reply, Nothing):
            self._nothing = reply
            return Event.NO_WORK
        self._following = reply
        return Event.WORK_FOUND

    async def _nothing_yet(self) -> None:
        """Find work for idle time, or wait for other work."""
        if self.draining or not await self.idle_work.look():
            self._woken = await self._wait_for_work(self._nothing, self._idle_pause_s())
        else:
            self.work_waits = True

    async def _claim(self) -> ClaimReply:
        """Claim; after a lost reply, ask for the same task again."""
        started_s = monotonic_s()
        answer = self.waiter.take_answer()
        reply = self.claimant.answered(answer) if answer is not None else None
        again = answer is None and self._claim_unanswered
        if reply is None:
            if self.waiter.asked:
                await self.waiter.close()
            self._claim_unanswered = True
            reply = await self.claimant.claim(self.data.to_hash(), again=again)
        self._claim_unanswered = self.work_waits = False
        self._looked_s = monotonic_s() if isinstance(reply, Nothing) else 0.0
        if again and isinstance(reply, Halted):
            self._woken = True  # what the lost claim had taken is back in the queue: tell others
        self._claim_took = measured(monotonic_s() - started_s)
        return reply

    async def _hand_back(self) -> None:
        """Give back what was taken and not begun: that costs no attempt."""
        if self._following is not None and self._owed is None:
            attempt, self._following = Attempt(self._following), None
            self._owed = _Owed(attempt, Ending("requeue", ""))
        if self._owed is not None:
            await self._record()

    async def _record(self) -> None:
        """Tell the queue how the owed attempt ended; take the next task along."""
        owed = self._owed
        if owed is None:
            return
        attempt = owed.attempt
        again, owed.sent = owed.sent, True
        owed.asked |= not self.draining and self.verdict.unsafe_reason() is None
        started_s = monotonic_s()
        duration_s = attempt.outcome.duration_s if attempt.outcome else 0.0
        try:
            finished = await self.claimant.finish(
                attempt.claim,
                owed.ending,
                result=attempt.result_json(self.claimant.nova),
                detail=attempt.detail(),
                state=self.data.to_hash(),
                duration=measured(duration_s),
                claimed=self._claim_took,
                woken=self._wake_latency(attempt),
                claim_next=owed.asked,
                again=again,
            )
        except LeaseLost as lost:
            log.warning("%s; what it did is dropped", lost)
            self._owed = None
            self._claim_unanswered = again and owed.asked  # the first call may have arrived
            self.routine.doubt()
            return
        self._owed = None
        if finished.status == "completed" and attempt.outcome is not None:
            # Here, and not in the routine's own state, which a failure leaves out.
            self._completed = attempt.claim.task_id
            self.data.last_completion_celebration = self.clock.now_ms()
            self.data.tasks_completed_in_phase += 1
            self.routine.completed(attempt.claim, attempt.outcome)
        self._claim_took = measured(monotonic_s() - started_s)
        if isinstance(finished.following, Claim):
            self._following = finished.following
        elif isinstance(finished.following, Halted):
            self.verdict.halt(finished.following)
        elif isinstance(finished.following, Nothing):
            self._nothing = finished.following
            self._looked_s = monotonic_s()
        if finished.wake:
            try:
                await self.claimant.wake(finished.wake)
            except (RedisError, OSError) as error:  # a hint: those Novas look by themselves soon
                log.warning("could not wake %s: %s", ", ".join(finished.wake), error)

    def _wake_latency(self, attempt: Attempt) -> Measured:
        """From ready to started, for work that found this Nova idle."""
        if not self._woken or attempt.outcome is None:
            return NOT_MEASURED
        self._woken = False
        waited_ms = self.clock.now_ms() - attempt.claim.ready_ms
        return measured(max(0.0, waited_ms / 1000 - (monotonic_s() - attempt.started_s)))

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
        self._claim_unanswered |= asks  # also when the wait is cut short by a failure
        woken = await self.waiter.wait(wait_s, self.interrupt)
        self._claim_unanswered = self.waiter.asked or self.waiter.answer_came
        return woken

    async def _pause(self, pause_s: float) -> None:
        self.settled()
        if pause_s <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_s):  # 3.11's wait_for can lose a cancellation
                await self.interrupt.wait()


def measured(duration_s: float) -> Measured:
    """A latency as bucket number and microseconds."""
    microseconds = int(duration_s * 1_000_000)
    return Measured(str(bisect.bisect_left(LATENCY_US, microseconds)), microseconds)
