"""Short callables one after the other, while the ends of those before are being recorded.

One round trip per task bounds a Nova to what a round trip takes. In a series the store is told of
several ends by one call, which brings as many tasks, and the next task runs meanwhile (decision
016). How many is decided by `Tempo`: never more than `[tasks] series_ms` of work, so a crash
repeats at most twice that, and nothing of tasks that may not be repeated: those are never taken
ahead.

Whatever is not short ends the series: a job that takes longer than `SLOW_S` first lets go of the
tasks that wait behind it, so that other Novas may have them. So does one that makes them wait for
longer than that, whatever ran before it; and where this happens often, fewer are taken ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from novawf.clock import monotonic_s
from novawf.workflow.attempt import Attempt, AttemptRunner
from novawf.workflow.in_hand import InHand

MOST = 8
"""Ends that one call waits for; twice as many tasks can be in hand."""

SLOW_S = 0.02
"""A job that takes longer than this is not short, whatever those before it were."""

SERIES_S = 0.25
"""A series ends after this, so that the cycle goes on; the next may follow at once."""

CAUTION = 64
"""The most short tasks in a row that are asked for before tasks are taken ahead again."""

AGAIN_S = 0.25
"""Pause before the store is told once more, beside a job that goes on."""


class Tempo:
    """How many tasks are worth one call, by how long the last ones took: `group_s` of work.

    Where short and long tasks are mixed, what is taken ahead is given back, at the price of two
    records each. Each time more short tasks in a row are asked for before the next are taken ahead.
    """

    def __init__(self, group_s: float) -> None:
        self.group_s = group_s
        self._mean_s = 0.0
        self._group = 0
        self._short = 0
        """Short ones in a row."""
        self._needed = 0
        """How many of them must have been before tasks are taken ahead."""

    def note(self, attempt: Attempt, *, in_vain: bool = False) -> int:
        """Learn of an attempt; how many ends to collect, 0 when each is to be told by itself.

        `in_vain`: tasks that waited behind it were given back.
        """
        outcome, spec = attempt.outcome, attempt.claim.spec
        if (
            not self.group_s
            or outcome is None
            or not outcome.ok
            or "callable" not in spec
            or outcome.duration_s > self.group_s
            or attempt.acceptance is not None
            or attempt.interruption
        ):
            if in_vain and self._short < 2 * CAUTION:  # after many short ones it is no matter
                self._needed = min(max(CAUTION // 8, 2 * self._needed), CAUTION)
            self._group = self._short = 0
            return 0
        self._short += 1
        if self._short <= self._needed:
            return 0
        if self._short >= 2 * CAUTION:
            self._needed = 0
        if not self._group:
            self._mean_s, self._group = outcome.duration_s, 1
            return 1
        self._mean_s += (outcome.duration_s - self._mean_s) / 4
        fits = int(self.group_s / max(self._mean_s, 1e-6))
        self._group = max(1, min(2 * self._group, fits, MOST))
        return self._group


class Series:
    """Does the attempt in hand, and as many short ones after it as come.

    `begun` is told of each attempt, `may_go_on` asked before each but the first, `reported` waited
    for after each.
    """

    def __init__(
        self,
        in_hand: InHand,
        runner: AttemptRunner,
        tempo: Tempo,
        *,
        begun: Callable[[Attempt], None],
        may_go_on: Callable[[], bool],
        reported: Callable[[], Awaitable[None]],
        settled: Callable[[], None],
    ) -> None:
        self.in_hand = in_hand
        self.runner = runner
        self.begun = begun
        self.may_go_on = may_go_on
        self.reported = reported
        self.settled = settled
        self.tempo = tempo
        self._recording: asyncio.Task[None] | None = None
        self._slow = False
        self._in_vain = False
        self._runs = False

    async def run(self) -> None:
        """Until an attempt is in hand that is over and not recorded, or none.

        Raises what the runner raises, Fenced, and redis' errors of the recording.
        """
        self._slow, self._in_vain, self._runs = False, False, True
        try:
            await self._run()
        except asyncio.CancelledError:
            recording, self._recording = self._recording, None
            if recording is not None:
                recording.cancel()
                # However that ended: who is cancelled must not go on with another error.
                await asyncio.gather(recording, return_exceptions=True)
            raise
        finally:
            self._runs = False
            recording, self._recording = self._recording, None
            if recording is not None:
                await recording

    async def _run(self) -> None:
        hand = self.in_hand
        call_later = asyncio.get_running_loop().call_later
        ends_s = monotonic_s() + SERIES_S
        while (attempt := hand.attempt) is not None:
            self.begun(attempt)
            slow = call_later(self._patience_s(), self._let_go)
            try:
                await self.runner.run(attempt)
            finally:
                slow.cancel()
            await self.reported()  # its last words come before its end
            group = self.tempo.note(attempt, in_vain=self._in_vain)
            if not group or self._slow or monotonic_s() >= ends_s or not self.may_go_on():
                return
            hand.end(0.0)
            if not hand.held or hand.over >= group:
                await self._record(group)
            if not hand.held and self._recording is not None:
                await self._recorded()
            if not hand.held and hand.over:  # what came back first was for another
                await self._record(group)
                await self._recorded()
            if not self.may_go_on() or hand.begin() is None:
                return

    async def _record(self, group: int) -> None:
        """Tell the store in the background, one call at a time."""
        hand = self.in_hand
        if self._recording is not None:
            if not self._recording.done():
                return
            await self._recorded()
        want = max(1, 2 * group - len(hand.held)) if self.may_go_on() else 0
        self._recording = asyncio.ensure_future(hand.record(want, behind=bool(hand.held)))

    async def _recorded(self) -> None:
        recording = self._recording
        if recording is not None:
            await recording
            self._recording = None

    def _patience_s(self) -> float:
        """How long the job in hand may take before what waits behind it goes to others.

        One that is short is let be, however long it took to get there: on a machine that is busy
        with other things, what is given back would only be taken again.
        """
        held, short_s = self.in_hand.held, 2 * self.tempo.group_s
        if not held:
            return SLOW_S
        waited_s = monotonic_s() - held[0].came_s
        return min(SLOW_S, max(short_s, SLOW_S + short_s - waited_s))

    def _let_go(self) -> None:
        """The job in hand is not short, or one before it was not: what ended is recorded, what
        waits goes to others; and the job is shown, with a heartbeat that renews its lease."""
        self._slow = True
        self.settled()
        self._recording = asyncio.ensure_future(self._give_back(self._recording))

    async def _give_back(self, before: asyncio.Task[None] | None) -> None:
        """Beside the job, for as long as it goes on: a store that is away comes back."""
        while True:
            try:
                if before is not None:
                    await before
                if self.in_hand.held:
                    self._in_vain = True
                await self.in_hand.hand_back()
                return
            except (RedisError, OSError):
                before = None  # what it did not get done is still owed
                if not self._runs:
                    raise
                await asyncio.sleep(AGAIN_S)
