"""Safety mechanism: the store is within reach and takes writes.

Reading is tried by a PING. Writing is tried by the orchestrator's own renewal of the gate, which
is the one write that safety rests on; a probe beside it would prove less and cost a round trip.
Stream lag and growth are other questions, not asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from novawf.errors import NovawfError
from novawf.safety.verdict import Verdict, safe, unsafe
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.config import SafetySettings
    from novawf.safety.orchestrator import RenewalState
    from novawf.store.connect import StoreAddress


@dataclass(frozen=True, slots=True)
class StoreObservation:
    """One PING: when it was sent (fleet ms), and why it failed, if it did."""

    at_ms: int
    fault: str | None = None


class StoreReachable:
    """Unsafe while the store does not answer a PING in time or refused the last renewal."""

    name = "store_reachable"

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: SafetySettings,
        *,
        deadline_s: float = 1.0,
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`deadline_s` bounds the PING; `store` is named in errors."""
        self._redis = redis
        self._clock = clock
        self._valid_ms = round(settings.valid_s * 1000)
        self._store = store
        self.deadline_s = deadline_s

    async def observe(self) -> StoreObservation:
        """Send one PING."""
        at_ms = self._clock.now_ms()
        try:
            with translate_errors(self._store):
                await self._redis.ping()
        except NovawfError as error:
            return StoreObservation(at_ms, str(error))
        return StoreObservation(at_ms)

    def evaluate(self, observation: StoreObservation, state: RenewalState, now_ms: int) -> Verdict:
        """Judge the PING and the last renewal."""
        return judge(observation, state, now_ms, self._valid_ms)


def judge(
    observation: StoreObservation, state: RenewalState, now_ms: int, valid_ms: int
) -> Verdict:
    """The verdict on a PING and on the last renewal of the gate; holds for `valid_ms`."""
    if observation.fault is not None:
        return unsafe(observation.fault, now_ms + valid_ms)
    if state.fault is not None:
        return unsafe(f"the last renewal failed: {state.fault}", now_ms + valid_ms)
    return safe("the store answers and takes writes", observation.at_ms + valid_ms)
