"""Asks every safety mechanism, combines their answers, and renews the gate's verdict.

A mechanism observes (its only effect) and evaluates what it saw (pure). It knows nothing of its
siblings. All must agree: one that raises, that does not answer by its deadline or that judges by
stale input counts as unsafe. If this orchestrator itself stops, its last verdict expires in the
gate within `valid_s` and nothing starts any more: no part of this can fail open.

Whether a claim is refused is not decided here; the claim script reads the gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from novawf.clock import monotonic_s
from novawf.errors import NovawfError
from novawf.safety.gate import Gate
from novawf.safety.verdict import Verdict, combine, unsafe

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.config import SafetySettings
    from novawf.store.connect import StoreAddress

_LOG = logging.getLogger(__name__)

_RETRY_S = 0.5
"""Pause after a renewal that failed: work resumes soon after the store is back."""


class Observation(Protocol):
    """What a mechanism saw, and when (fleet ms) it looked."""

    @property
    def at_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class RenewalState:
    """What the orchestrator itself knows and a mechanism may judge by: its last renewal."""

    renewed_at_ms: int = 0
    """When a verdict last reached the gate (fleet ms); 0 never."""
    fault: str | None = None
    """Why the last renewal failed; None when it reached the gate."""


Seen = TypeVar("Seen", bound=Observation)


class Mechanism(Protocol[Seen]):
    """One reason for which work may have to wait."""

    @property
    def name(self) -> str: ...

    @property
    def deadline_s(self) -> float:
        """How long each of the two may take, `refresh_s` at most; beyond it counts as unsafe."""

    async def observe(self) -> Seen:
        """Look. Never decides."""

    def evaluate(self, observation: Seen, state: RenewalState, now_ms: int) -> Verdict:
        """Judge what was seen. Pure: no effects, no waiting."""


@dataclass(frozen=True, slots=True)
class SafetyStatus:
    """The orchestrator's last round."""

    verdict: Verdict | None = None
    """None before the first round."""
    mechanisms: Mapping[str, Verdict] = field(default_factory=dict)
    check_s: float = 0.0
    """How long the round took, without the renewal."""
    renewal: RenewalState = field(default_factory=RenewalState)


class SafetyOrchestrator:
    """Renews the safety verdict every `refresh_s` until it is cancelled."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: SafetySettings,
        mechanisms: Sequence[Mechanism[Any]],
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`store` is named in errors."""
        self._gate = Gate(redis, clock, store)
        self._clock = clock
        self._settings = settings
        self._mechanisms = tuple(mechanisms)
        self._looking: dict[str, asyncio.Task[Observation]] = {}
        self._status = SafetyStatus()

    def status(self) -> SafetyStatus:
        """What the last round found."""
        return self._status

    async def run(self) -> None:
        """Rounds without end. Cancelling it lets the verdict expire."""
        try:
            while True:
                started_s = monotonic_s()
                status = await self.round()
                pause_s = self._settings.refresh_s if status.renewal.fault is None else _RETRY_S
                await asyncio.sleep(max(0.0, started_s + pause_s - monotonic_s()))
        finally:
            for task in self._looking.values():
                task.cancel()

    async def round(self) -> SafetyStatus:
        """Ask every mechanism once and renew the gate; never raises for a fault of either."""
        started_s, started_ms = monotonic_s(), self._clock.now_ms()
        # A verdict holds from the moment its evidence was gathered, not from when it was written.
        valid_until_ms = started_ms + round(self._settings.valid_s * 1000)
        verdicts = await self._ask_all(valid_until_ms)
        verdict = combine(verdicts, self._clock.now_ms(), valid_until_ms)
        check_s = monotonic_s() - started_s
        renewal = await self._renew(verdict, started_ms)
        self._note_change(verdict)
        self._status = SafetyStatus(verdict, verdicts, check_s, renewal)
        return self._status

    async def _ask_all(self, valid_until_ms: int) -> dict[str, Verdict]:
        for mechanism in self._mechanisms:
            # One that still hangs from an earlier round is waited for, never started twice; what
            # it found after its deadline is dropped.
            looking = self._looking.get(mechanism.name)
            if looking is None or looking.done():
                task = asyncio.create_task(mechanism.observe(), name=f"safety-{mechanism.name}")
                self._looking[mechanism.name] = task
        answers = [self._ask(mechanism, valid_until_ms) for mechanism in self._mechanisms]
        verdicts = await asyncio.gather(*answers)
        names = [mechanism.name for mechanism in self._mechanisms]
        return dict(zip(names, verdicts, strict=True))

    async def _ask(self, mechanism: Mechanism[Any], valid_until_ms: int) -> Verdict:
        task = self._looking[mechanism.name]
        limit_s = min(mechanism.deadline_s, self._settings.refresh_s)
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if not done:
            task.cancel()
            return unsafe(f"no answer within {limit_s:g} s", valid_until_ms)
        if task.cancelled():
            return unsafe("no answer: it was cancelled", valid_until_ms)
        try:
            return self._judge(mechanism, task.result(), valid_until_ms)
        except Exception as error:
            # Fails closed, whatever it was: a broken check is not a passed one.
            _LOG.warning("safety mechanism %s failed", mechanism.name, exc_info=error)
            return unsafe(f"its check failed: {error!r}", valid_until_ms)

    def _judge(
        self, mechanism: Mechanism[Any], observation: Observation, valid_until_ms: int
    ) -> Verdict:
        now_ms = self._clock.now_ms()
        age_ms = now_ms - observation.at_ms
        if not 0 <= age_ms <= self._settings.valid_s * 1000:
            return unsafe(f"its input is stale ({age_ms / 1000:.1f} s old)", valid_until_ms)
        started_s = monotonic_s()
        verdict = mechanism.evaluate(observation, self._status.renewal, now_ms)
        if monotonic_s() - started_s > mechanism.deadline_s:
            return unsafe(f"its evaluation took over {mechanism.deadline_s:g} s", valid_until_ms)
        return verdict

    async def _renew(self, verdict: Verdict, checked_at_ms: int) -> RenewalState:
        before = self._status.renewal
        try:
            await self._gate.refresh(verdict, checked_at_ms)
        except NovawfError as error:
            if before.fault is None:
                _LOG.warning("the safety verdict cannot be renewed: %s", error)
            return RenewalState(before.renewed_at_ms, str(error))
        return RenewalState(self._clock.now_ms())

    def _note_change(self, verdict: Verdict) -> None:
        before = self._status.verdict
        if before is None or before.is_safe != verdict.is_safe:
            log = _LOG.info if verdict.is_safe else _LOG.warning
            log("safety verdict: %s", verdict.reason)
