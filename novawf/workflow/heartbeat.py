"""A Nova's heartbeat: shows its life, renews the lease of the task in hand, hears of orders.

Beats come at regular times and soon after a change that lasts. One that has nothing new to say is
a pulse, which names only the cycle: an idle Nova sends it for hours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace

from redis.exceptions import RedisError

from novawf.clock import Clock, monotonic_s
from novawf.errors import Fenced
from novawf.tasks.claims import Beat, Claimant
from novawf.workflow.attempt import Attempt
from novawf.workflow.identity import NovaBeat
from novawf.workflow.state_data import StateData
from novawf.workflow.states import State
from novawf.workflow.steps import Steps

log = logging.getLogger("novawf.workflow")

SETTLED_S = 0.05
"""A state that lasts longer is published; quicker ones cost no round trip of their own."""

WHOLE_EVERY_MS = 300_000
"""Between two whole beats at most: they keep the workflow state, pulses do not."""

RETRY_S = 0.5
"""Longest pause after a beat that failed."""


class Heartbeat:
    """The heartbeat of one life of a Nova. Only the event loop's thread may use it."""

    steps: Steps
    """Whose life it shows; given before the first beat."""

    def __init__(
        self, data: StateData, claimant: Claimant, clock: Clock, last_error: Callable[[], str]
    ) -> None:
        self.data = data
        self.claimant = claimant
        self.clock = clock
        self.last_error = last_error
        self.now = asyncio.Event()
        """Set to have a beat at once."""
        self._settle: asyncio.TimerHandle | None = None
        self._since_ms = 0
        self.state: State | None = None
        """The state that was published last."""
        self._cycles = -1
        self._moved_ms = 0
        """When the cycle was last seen to have moved."""
        self.renewed: Callable[[float], None] = lambda _: None
        """Told, after each beat that the store answered, when that was sent, monotonic s."""
        self.stopped: Callable[[bool], None] = lambda _: None
        """Told of each beat that brought word of a stop; whether that lets running work finish."""
        self._shown: NovaBeat | None = None
        """The last whole beat that the store answered."""

    def settled(self) -> None:
        """The cycle is about to stay where it is: publish that if it really does."""
        self.close()
        self._settle = asyncio.get_running_loop().call_later(SETTLED_S, self._publish)

    def close(self) -> None:
        """Publish nothing more by itself."""
        if self._settle is not None:
            self._settle.cancel()

    def _publish(self) -> None:
        self._settle = None
        if self.data.current_state is not self.state or self.steps.attempt is not None:
            self.now.set()

    async def beat(self) -> Beat:
        """One heartbeat. Raises Fenced, or redis' errors."""
        state = self.data.current_state
        if state is not self.state:
            self.state = state
            self._since_ms = self.clock.now_ms()
        verdict, attempt = self.steps.verdict, self.steps.attempt
        claim = attempt.claim if attempt is not None and attempt.outcome is None else None
        orders = verdict.orders
        shown = self._shows(attempt)
        sent_s = monotonic_s()
        presence = "PAUSED" if state is State.SAFETY_PAUSE else "ACTIVE"
        beat = None
        if attempt is None and self._nothing_new(shown):
            beat = await self.claimant.pulse(shown.cycles, shown.progress_ms, presence)
        if beat is None:
            beat = await self.claimant.beat(shown.to_json(), presence, claim, self.data.to_hash())
            self._shown = shown
        if attempt is self.steps.attempt and (claim is None or beat.lease_held):
            self.renewed(sent_s)
        if verdict.orders != orders:
            # It may not know of the stop yet: the next one does.
            beat = beat._replace(stopped=True, drains=verdict.drains)
        self.steps.in_hand.work_waits |= beat.work
        if claim is not None and attempt is self.steps.attempt and attempt is not None:
            if not beat.lease_held and attempt.outcome is None:
                attempt.interrupt("lost")
            elif beat.cancel:
                attempt.interrupt("cancelled")
        if beat.stopped:
            self.stopped(beat.drains)
        return beat

    def _nothing_new(self, shown: NovaBeat) -> bool:
        before = self._shown
        return (
            before is not None
            and shown.seen_ms - before.seen_ms < WHOLE_EVERY_MS
            and before
            == replace(
                shown,
                cycles=before.cycles,
                seen_ms=before.seen_ms,
                progress_ms=before.progress_ms,
            )
        )

    def _shows(self, attempt: Attempt | None) -> NovaBeat:
        now_ms = self.clock.now_ms()
        cycles = self.data.total_cycles_completed
        if cycles != self._cycles:
            self._cycles, self._moved_ms = cycles, now_ms
        recovering = self.data.current_state is State.ERROR_RECOVERY
        return NovaBeat(
            pid=os.getpid(),
            epoch=self.claimant.nova_epoch,
            state=self.data.current_state.value,
            phase=self.data.current_phase.value,
            task=attempt.claim.task_id if attempt else "",
            title=attempt.claim.spec["title"][:80] if attempt else "",
            cycles=cycles,
            seen_ms=now_ms,
            progress_ms=attempt.last_sign_ms if attempt else self._moved_ms,
            cycle_ms=self._moved_ms if attempt else 0,
            record_ms=self.claimant.recorded_ms,
            since_ms=self._since_ms,
            permit_ms=attempt.permit_since_ms if attempt else 0,
            error=self.last_error()[:300] if recovering else "",
        )

    async def run(self) -> Fenced:
        """Beat soon after a lasting change, else by the lease or the idle wait; until fenced off.

        Returns why: a newer owner has this identity.
        """
        settings = self.claimant.settings
        while True:
            pause_s = settings.idle_wait_s
            if self.steps.attempt:
                pause_s = min(pause_s, settings.lease_s / 3)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):  # 3.11's wait_for can lose a cancellation
                    await self.now.wait()
            self.now.clear()
            try:
                self.steps.verdict.learn(await self.beat())
            except Fenced as fenced:
                return fenced
            except Exception as error:  # without heartbeats the task in hand would be lost
                if isinstance(error, RedisError | OSError):
                    log.warning("heartbeat: %s", error)
                else:
                    log.exception("heartbeat failed; it goes on")
                await asyncio.sleep(min(RETRY_S, settings.lease_s / 10))
                self.now.set()
