"""What a Nova has of the queue: tasks it took, the attempt it makes, ends it still owes the store.

It keeps two promises across every failure. An attempt that ended is recorded exactly once: it is
owed until the store has confirmed it, and the call is repeated as it was. A claim whose reply was
lost, alone or along with ends, is asked for again under its old number, also by a Nova that pauses
or drains: the store may have put a task into its hands that nobody knows of.

Not here: when to take or to tell (`steps.py`, `series.py`).
"""

from __future__ import annotations

import bisect
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError

from novawf.clock import Clock, monotonic_s
from novawf.tasks.claims import (
    NOT_MEASURED,
    Claim,
    Claimant,
    Ended,
    Halted,
    Measured,
    Nothing,
    Recording,
    Taken,
)
from novawf.tasks.ending import Ending
from novawf.telemetry.buckets import LATENCY_US
from novawf.workflow.attempt import Attempt
from novawf.workflow.state_data import StateData
from novawf.workflow.verdict_view import VerdictView
from novawf.workflow.waking import WorkWaiter

log = logging.getLogger("novawf.workflow")


@dataclass(slots=True)
class _Over:
    """An attempt that ended, and what the queue is to be told."""

    attempt: Attempt
    told: Ended


@dataclass(slots=True)
class _Call:
    """Ends on their way to the store, until it has confirmed them."""

    ends: list[_Over]
    want: int = 0
    """Tasks asked for along with it: then every repeat asks too."""
    behind: bool = False
    sent: bool = False


class InHand:
    """Everything of the queue that one life of one Nova is answerable for."""

    def __init__(
        self,
        data: StateData,
        clock: Clock,
        claimant: Claimant,
        waiter: WorkWaiter,
        verdict: VerdictView,
        completed: Callable[[Attempt], None],
        doubt: Callable[[], None],
    ) -> None:
        self.data = data
        self.clock = clock
        self.claimant = claimant
        self.waiter = waiter
        self.verdict = verdict
        self.completed = completed
        """Told of each attempt that the store has recorded as completed."""
        self.doubt = doubt
        """Told when an attempt may or may not have been recorded."""
        self.attempt: Attempt | None = None
        self.held: deque[Claim] = deque()
        """Taken and not begun, in the order in which they are to be done."""
        self.nothing = Nothing()
        self.looked_s = 0.0
        """When the queue last had nothing, monotonic; 0: it was not asked since."""
        self.work_waits = False
        """A heartbeat saw work that this Nova may take."""
        self.woken = False
        """A token came, and what it announced was not begun yet."""
        self.claim_unanswered = False
        self._fresh_ms = claimant.settings.lease_s * 500
        self._over: deque[_Over] = deque()
        self._call: _Call | None = None
        self._claim_took: Measured = NOT_MEASURED

    @property
    def empty(self) -> bool:
        """Whether nothing is in hand: no attempt, no claim, nothing owed to the store.

        A claim that waits behind the blocking read is nothing in hand.
        """
        return (
            self.attempt is None
            and not self.held
            and not self.owes
            and (self.waiter.asked or not self.claim_unanswered)
        )

    @property
    def owes(self) -> bool:
        """Whether ends are to be recorded."""
        return self._call is not None or bool(self._over)

    @property
    def over(self) -> int:
        """How many attempts ended that no call has taken along yet."""
        return len(self._over)

    def begin(self) -> Attempt | None:
        """Make the next task in hand the attempt; None when there is none that may be begun.

        One that was taken long ago is not: this process was stopped, and the task may be another's.
        """
        held = self.held
        if not held or self.clock.now_ms() - held[0].taken_ms > self._fresh_ms:
            return None
        self.attempt = Attempt(held.popleft())
        return self.attempt

    def undo_begin(self) -> None:
        """Nothing was done of the attempt yet, and now may not be: it is held again."""
        if self.attempt is not None:
            self.held.appendleft(self.attempt.claim)
            self.attempt = None

    def end(self, jitter: float) -> None:
        """The attempt is over: its end is owed, unless its task is in other hands."""
        attempt, self.attempt = self.attempt, None
        self.data.task_in_hand = ""
        if attempt is not None and attempt.interruption != "lost":
            ending = attempt.ending(self.claimant.settings, jitter)
            self._over.append(_Over(attempt, self._told(attempt, ending)))

    def cancel(self, task_id: str, epoch: str) -> bool:
        """Interrupt the attempt at a task, also one not begun yet; whether it is in hand."""
        attempt = self.attempt
        claims = [claim for claim in self.held if claim.task_id == task_id]
        if attempt is not None and attempt.claim.task_id == task_id:
            claims.append(attempt.claim)
        for claim in claims:
            if str(claim.epoch) != epoch:
                continue
            if attempt is not None and claim is attempt.claim:
                attempt.interrupt("cancelled")
            else:
                self.held.remove(claim)
                self._over.append(_not_begun(claim))
            return True
        return False

    async def take(self) -> bool | Halted:
        """Ask for the next task; after a lost reply, for the same again. Whether there was one."""
        started_s = monotonic_s()
        answer = self.waiter.take_answer()
        reply = self.claimant.answered(answer) if answer is not None else None
        again = answer is None and self.claim_unanswered
        if reply is None:
            if self.waiter.asked:
                await self.waiter.close()
            self.claim_unanswered = True
            reply = await self.claimant.take(self.data.to_hash(), again=again)
        self.claim_unanswered = self.work_waits = False
        self.looked_s = monotonic_s() if isinstance(reply, Nothing) else 0.0
        if again and isinstance(reply, Halted):
            self.woken = True  # what the lost claim had taken is back in the queue: tell others
        self._claim_took = measured(monotonic_s() - started_s)
        if isinstance(reply, Halted):
            return reply
        if isinstance(reply, Nothing):
            self.nothing = reply
            return False
        self.held.extend(reply)
        return True

    async def record(self, want: int, *, behind: bool = False) -> None:
        """Tell the queue of all that ended, and take up to `want` tasks along with the last call.

        `behind`: something else is in hand, so that what is taken will wait. Raises Fenced and
        redis' errors; what is not confirmed then is owed still.
        """
        left = len(self._over)  # what ends meanwhile is the next call's
        while left or self._call is not None:
            if self._call is None:
                if self.claim_unanswered and not self.waiter.asked:
                    await self._ask_again()
                self._call = _Call(self._next_group(left))
                left -= len(self._call.ends)
            call = self._call
            again, call.sent = call.sent, True
            if not call.want and not left:  # a number that asked for nothing is unused
                call.want, call.behind = want, behind or bool(self.held)
            started_s = monotonic_s()
            recording = await self.claimant.record(
                [end.told for end in call.ends],
                want=call.want,
                behind=call.behind,
                state=self.data.to_hash(),
                claimed=self._claim_took,
                again=again,
            )
            self._call = None
            self._claim_took = measured(monotonic_s() - started_s)
            self._confirmed(call, recording, again)
            await self._wake(recording.wake)

    async def hand_back(self) -> None:
        """Give back what was taken and not begun, after all that ended: that costs no attempt."""
        while self.held or self.owes:  # the repeat of a call that was lost may bring some more
            self._over.extend(map(_not_begun, self.held))
            self.held.clear()
            await self.record(0)

    async def _ask_again(self) -> None:
        """What a lost call took is asked for under its number, before that number is gone."""
        taken = await self.take()
        if isinstance(taken, Halted):
            self.verdict.halt(taken)

    def _next_group(self, most: int) -> list[_Over]:
        """What one call may tell: all that is completed, or one other end."""
        over = self._over
        group = [over.popleft()]
        if group[0].told.ending.verdict == "completed":
            while len(group) < most and over[0].told.ending.verdict == "completed":
                group.append(over.popleft())
        return group

    def _told(self, attempt: Attempt, ending: Ending) -> Ended:
        duration_s = attempt.outcome.duration_s if attempt.outcome else 0.0
        return Ended(
            attempt.claim,
            ending,
            attempt.result_json(self.claimant.nova),
            attempt.detail(),
            measured(duration_s),
            self._wake_latency(attempt),
        )

    def _wake_latency(self, attempt: Attempt) -> Measured:
        """From ready to started, for work that found this Nova idle."""
        if not self.woken or attempt.outcome is None:
            return NOT_MEASURED
        self.woken = False
        waited_ms = self.clock.now_ms() - attempt.claim.ready_ms
        return measured(max(0.0, waited_ms / 1000 - (monotonic_s() - attempt.started_s)))

    def _confirmed(self, call: _Call, recording: Recording, again: bool) -> None:
        self._follows(call, recording.following, again)
        for end, recorded in zip(call.ends, recording.ended, strict=True):
            if recorded.lost:
                log.warning("%s; what it did is dropped", self.claimant.lost(end.told.claim))
                self.doubt()
            elif recorded.status == "completed" and end.attempt.outcome is not None:
                self.completed(end.attempt)

    def _follows(self, call: _Call, following: Taken | None, again: bool) -> None:
        if isinstance(following, tuple):
            self.held.extend(following)
            self.looked_s = 0.0
        elif isinstance(following, Halted):
            self.verdict.halt(following)
            self.woken |= again  # what the lost call had taken is back in the queue: tell others
        elif isinstance(following, Nothing):
            self.nothing = following
            self.looked_s = monotonic_s()
        elif call.want:  # no attempt had its task any more; the first call may have taken one
            self.claim_unanswered = again

    async def _wake(self, novas: tuple[str, ...]) -> None:
        if novas:
            try:
                await self.claimant.wake(novas)
            except (RedisError, OSError) as error:  # a hint: those Novas look by themselves soon
                log.warning("could not wake %s: %s", ", ".join(novas), error)


def _not_begun(claim: Claim) -> _Over:
    """A task that goes back to its place."""
    return _Over(Attempt(claim), Ended(claim, Ending("requeue", ""), detail="not begun"))


def measured(duration_s: float) -> Measured:
    """A latency as bucket number and microseconds."""
    microseconds = int(duration_s * 1_000_000)
    return Measured(str(bisect.bisect_left(LATENCY_US, microseconds)), microseconds)
