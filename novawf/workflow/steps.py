"""What a Nova does in each of its nine states. The table of the moves is `states.py`.

The steps keep two promises across every failure: an attempt that has ended is recorded exactly
once (it is `owed` until the store has confirmed it), and a claim whose reply was lost is asked for
again under its old number instead of taking a second task.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections.abc import Awaitable, Callable

from novawf.clock import Clock, monotonic_s
from novawf.errors import LeaseLost
from novawf.executors.base import Outcome
from novawf.personality.config import CompletionSettings
from novawf.personality.rhythm import completion_pause_s
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
from novawf.telemetry.buckets import LATENCY_US
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

_RECOVERY_S = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Pauses before successive attempts to recover; the last one repeats (a store that is away)."""


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
        pace: float,
        rhythm_s: Callable[[], float],
        jitter: Callable[[], float],
        beat: Callable[[], Awaitable[Beat]],
        settled: Callable[[], None],
    ) -> None:
        self.data = data
        self.clock = clock
        self.claimant = claimant
        self.runner = runner
        self.waiter = waiter
        self.verdict = verdict
        self.phases = phases
        self.completion = completion
        self.pace = pace
        self.rhythm_s = rhythm_s
        self.jitter = jitter
        self.beat = beat
        self.settled = settled
        self.interrupt = asyncio.Event()
        self.draining = False
        self.attempt: Attempt | None = None
        self._following: Claim | None = None
        self._owed: tuple[Attempt, Ending, bool] | None = None
        self._claim_unanswered = False
        self._woken = False
        self._claim_took: Measured = NOT_MEASURED
        self._failures = 0
        self._completed = False

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
        """Whether nothing is in hand: no attempt, no claim, nothing owed to the store."""
        return self.attempt is None and self._following is None and self._owed is None

    async def _initializing(self) -> Event:
        self.verdict.learn(await self.beat())
        return Event.READY

    async def _stream_check(self) -> Event:
        self.data.last_stream_check = self.clock.now_ms()
        return Event.CHECKED

    async def _work_discovery(self) -> Event:
        if self._following is None and not self.draining:
            reply = await self._claim()
            if isinstance(reply, Halted):
                self.verdict.halt(reply)
                if self._woken and reply.kind == "paused":
                    await self.claimant.pass_on_wake()
                return Event.UNSAFE
            self.verdict.confirm()
            if isinstance(reply, Nothing):
                self._woken = await self._wait_for_work(reply, self.rhythm_s())
                return Event.NO_WORK
            self._following = reply
        if self._following is None:
            return Event.NO_WORK
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
        return Event.WORK_ENDED

    async def _progress_update(self) -> Event:
        attempt, self.attempt = self.attempt, None
        self.data.task_in_hand = ""
        if attempt is not None and attempt.interruption != "lost":
            ending = attempt.ending(self.claimant.settings, self.jitter())
            self._owed = (attempt, ending, False)
        if self._owed is not None:
            await self._record()
        return Event.RECORDED

    async def _completion_routine(self) -> Event:
        if self._completed:
            self._completed = False
            self.data.last_completion_celebration = self.clock.now_ms()
            self.data.tasks_completed_in_phase += 1
        working = self._following is not None or self.draining
        pause_s = completion_pause_s(self.completion, self.pace, working)
        if pause_s > 0:
            self.settled()
            self._woken = await self.waiter.wait(pause_s, self.interrupt)
        if phase_due(self.data.tasks_completed_in_phase, self.phases):
            return Event.PHASE_DUE
        return Event.ROUTINE_DONE

    async def _phase_transition(self) -> Event:
        data = self.data
        if data.current_phase is not Phase.PERSONAL:
            data.work_phases_completed += 1
        data.current_phase = next_phase(data.current_phase, self.phases, data.work_phases_completed)
        data.tasks_completed_in_phase = 0
        return Event.PHASE_CHANGED

    async def _error_recovery(self) -> Event:
        pause_s = _RECOVERY_S[min(self._failures, len(_RECOVERY_S) - 1)]
        self._failures += 1
        await self._pause(pause_s)
        await self.waiter.close()
        self.verdict.learn(await self.beat())
        if self.attempt is not None:  # the executor itself failed: our fault, not the task's
            if self.attempt.outcome is None:
                self.attempt.outcome = Outcome(
                    ok=False, cause="lost", error="the executor failed: see the Nova's log"
                )
            attempt, self.attempt = self.attempt, None
            self._owed = (attempt, attempt.ending(self.claimant.settings, self.jitter()), False)
        if self._owed is not None:
            await self._record()
        self._failures = 0
        return Event.RECOVERED

    async def _safety_pause(self) -> Event:
        if self._following is not None:
            # Taken before the gate shut and not begun: it goes back, and costs no attempt.
            attempt, self._following = Attempt(self._following), None
            self._owed = (attempt, Ending("requeue", ""), False)
        if self._owed is not None:
            await self._record()
        await self.waiter.close()
        self.verdict.learn(await self.beat())
        if self.verdict.unsafe_reason() is None:
            return Event.SAFE
        await self._pause(PAUSED_LOOK_S)
        return Event.UNSAFE

    async def _claim(self) -> ClaimReply:
        """Claim; after a lost reply, ask for the same task again."""
        started_s = monotonic_s()
        again, self._claim_unanswered = self._claim_unanswered, True
        reply = await self.claimant.claim(self.data.to_hash(), again=again)
        # Refused while a reply is missing: that claim may have taken a task, ask for it later.
        self._claim_unanswered = again and isinstance(reply, Halted)
        self._claim_took = measured(monotonic_s() - started_s)
        return reply

    async def _record(self) -> None:
        """Tell the queue how the owed attempt ended; take the next task along."""
        if self._owed is None:
            return
        attempt, ending, sent = self._owed
        self._owed = (attempt, ending, True)
        started_s = monotonic_s()
        claim = attempt.claim
        claim_next = not self.draining and self.verdict.unsafe_reason() is None
        duration_s = attempt.outcome.duration_s if attempt.outcome else 0.0
        try:
            finished = await self.claimant.finish(
                claim,
                ending,
                result=attempt.result_json(self.claimant.nova),
                detail=attempt.detail(),
                state=self.data.to_hash(),
                duration=measured(duration_s),
                claimed=self._claim_took,
                woken=self._wake_latency(attempt),
                claim_next=claim_next,
                again=sent,
            )
        except LeaseLost as lost:
            log.warning("%s; what it did is dropped", lost)
            self._owed = None
            return
        self._owed = None
        self._completed = finished.status == "completed"
        self._claim_took = measured(monotonic_s() - started_s)
        if finished.wake:
            await self.claimant.wake(finished.wake)
        if isinstance(finished.following, Claim):
            self._following = finished.following
        elif isinstance(finished.following, Halted):
            self.verdict.halt(finished.following)
            self._claim_unanswered = sent

    def _wake_latency(self, attempt: Attempt) -> Measured:
        """From ready to started, for work that found this Nova idle."""
        if not self._woken or attempt.outcome is None:
            return NOT_MEASURED
        self._woken = False
        waited_ms = self.clock.now_ms() - attempt.claim.ready_ms
        return measured(max(0.0, waited_ms / 1000 - (monotonic_s() - attempt.started_s)))

    async def _wait_for_work(self, nothing: Nothing, rhythm_s: float) -> bool:
        """Wait for a wake token, the next due time, or the end of the idle cycle."""
        wait_s = min(rhythm_s, self.claimant.settings.idle_wait_s)
        if nothing.leases_expired:
            wait_s = min(wait_s, PAUSED_LOOK_S)  # the supervisor frees them; look again soon
        elif nothing.next_due_ms:
            wait_s = min(wait_s, max(0.001, (nothing.next_due_ms - self.clock.now_ms()) / 1000))
        self.settled()
        return await self.waiter.wait(wait_s, self.interrupt)

    async def _pause(self, pause_s: float) -> None:
        self.settled()
        if pause_s <= 0:
            return
        try:
            await asyncio.wait_for(self.interrupt.wait(), pause_s)
        except TimeoutError:
            return


def measured(duration_s: float) -> Measured:
    """A latency as bucket number and microseconds."""
    microseconds = int(duration_s * 1_000_000)
    return Measured(str(bisect.bisect_left(LATENCY_US, microseconds)), microseconds)
