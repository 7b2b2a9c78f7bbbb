"""API guardian: the API is called with permits only, and only as far as there is money (spec §5.4).

Limits, time-outs and the circuit breaker are enforced where a permit is granted (`novawf.limits`),
in the store's script, not here: a verdict that is two seconds old is no place for that. Here is
what follows for the fleet when a call was seen *without* a permit (an emergency: everything halts
for a while), and when a budget is spent (nothing starts that could spend more; what runs may end).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, SafetyLevel, Verdict, safe, unsafe

if TYPE_CHECKING:
    from novawf.safety.config import GuardianSettings


@dataclass(frozen=True, slots=True)
class Spent:
    """A budget that has nothing left. `nova` is '' where it is the fleet's."""

    nova: str
    sentence: str
    until_ms: int
    """When its window ends (fleet ms); 0: it has none."""


@dataclass(frozen=True, slots=True)
class ApiFacts:
    """What the store says of the API."""

    broken: tuple[str, ...] = ()
    """Upstreams whose circuit breaker is open: no permits for those, all else goes on."""
    spent: tuple[Spent, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardianMemory:
    """Its emergency stop."""

    until_ms: int = 0
    why: str = ""


class ApiGuardian:
    """The mechanism. `look` asks the store; it raises what the store answers amiss."""

    name = "api_guardian"

    def __init__(
        self,
        settings: GuardianSettings,
        valid_s: float,
        look: Callable[[], Awaitable[ApiFacts]],
        *,
        deadline_s: float = 1.0,
    ) -> None:
        self._emergency_ms = round(settings.emergency_s * 1000)
        self._valid_ms = round(valid_s * 1000)
        self._look = look
        self.deadline_s = deadline_s

    async def observe(self) -> ApiFacts:
        """Ask the store for breakers and budgets."""
        return await self._look()

    def evaluate(
        self, observation: Observation[ApiFacts], state: GuardianMemory, now_ms: int
    ) -> Judgement[GuardianMemory]:
        """Halt after a call without a permit, pause while a budget of the fleet is spent."""
        expires_ms = now_ms + self._valid_ms
        violations: tuple[SafetyEvent, ...] = ()
        seen = [event for event in observation.events if event.kind is Kind.API_HAMMERING]
        if seen:
            last = seen[-1]
            why = f"a call without a permit ({last.source}): {last.detail}"[:300]
            if state.until_ms <= now_ms:  # more of the same is the same emergency
                violations = (SafetyEvent(Kind.EMERGENCY, self.name, why, last.nova),)
            until_ms = max(min(event.at_ms, now_ms) for event in seen) + self._emergency_ms
            state = replace(state, until_ms=max(state.until_ms, until_ms), why=why)
        facts = observation.seen
        holds = {
            spent.nova: unsafe(spent.sentence, expires_ms, Action.PAUSE, spent.until_ms)
            for spent in facts.spent
            if spent.nova
        }
        verdict = self._verdict(facts, state, now_ms, expires_ms)
        return Judgement(verdict, state, holds, violations)

    def _verdict(
        self, facts: ApiFacts, state: GuardianMemory, now_ms: int, expires_ms: int
    ) -> Verdict:
        if state.until_ms > now_ms:
            return unsafe(state.why, expires_ms, Action.HALT, state.until_ms)
        fleets: Sequence[Spent] = [spent for spent in facts.spent if not spent.nova]
        if fleets:
            last = max(fleets, key=lambda spent: spent.until_ms or 2**62)
            return unsafe(last.sentence, expires_ms, Action.PAUSE, last.until_ms)
        if facts.broken:
            said = f"the circuit breaker is open for {', '.join(sorted(facts.broken))}"
            return safe(said, expires_ms, SafetyLevel.CAUTION)
        return safe("calls have permits, budgets have money", expires_ms)

    def parse(self, memory: Any) -> GuardianMemory:
        """See `Mechanism.parse`."""
        if memory is None:
            return GuardianMemory()
        return GuardianMemory(int(memory["until"]), str(memory["why"]))

    def dump(self, memory: GuardianMemory) -> Any:
        """See `Mechanism.dump`."""
        return {"until": memory.until_ms, "why": memory.why}
