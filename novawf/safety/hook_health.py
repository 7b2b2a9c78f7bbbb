"""Hook health: what the fleet makes of hooks that were shut off (spec §5.3).

That a hook loops, runs too often or calls an agent is found where it runs, by the hook governor
(`novawf.hooks`), which shuts it off there and reports it. Here the Nova whose hook it was starts
nothing for as long as the hook stays off, and goes on by itself when it recovers. A hook that
belongs to no Nova holds nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from novawf.safety.events import Kind
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.verdict import Action, SafetyLevel, Verdict, safe, unsafe

if TYPE_CHECKING:
    from novawf.safety.config import HookHealthSettings


@dataclass(frozen=True, slots=True)
class ShutOff:
    """A hook that is off."""

    until_ms: int
    nova: str
    detail: str


@dataclass(frozen=True, slots=True)
class HookMemory:
    """Hook → how it is off. Those that have recovered are forgotten."""

    off: Mapping[str, ShutOff] = field(default_factory=dict)


class HookHealth:
    """The mechanism."""

    name = "hook_health"
    deadline_s = 1.0

    def __init__(self, settings: HookHealthSettings, valid_s: float) -> None:
        self._cooldown_ms = round(settings.cooldown_s * 1000)
        self._valid_ms = round(valid_s * 1000)

    async def observe(self) -> None:
        """The governor looks."""

    def evaluate(
        self, observation: Observation[None], state: HookMemory, now_ms: int
    ) -> Judgement[HookMemory]:
        """Hold the Novas whose hooks are off."""
        off = dict(state.off)
        for event in observation.events:
            if event.kind is Kind.HOOK_FAILURE:
                until_ms = min(event.at_ms, now_ms) + self._cooldown_ms
                off[event.source] = ShutOff(until_ms, event.nova, event.detail)
        off = {hook: how for hook, how in off.items() if how.until_ms > now_ms}
        expires_ms = now_ms + self._valid_ms
        holds: dict[str, Verdict] = {}
        for hook, how in sorted(off.items(), key=lambda item: item[1].until_ms):
            if how.nova:
                said = f"its hook {hook} is shut off: {how.detail}"
                holds[how.nova] = unsafe(said, expires_ms, Action.PAUSE, how.until_ms)
        if off:
            verdict = safe(f"shut off: {', '.join(sorted(off))}", expires_ms, SafetyLevel.CAUTION)
        else:
            verdict = safe("no hook is shut off", expires_ms)
        return Judgement(verdict, HookMemory(off), holds)

    def parse(self, memory: Any) -> HookMemory:
        """See `Mechanism.parse`."""
        if memory is None:
            return HookMemory()
        return HookMemory(
            {
                str(hook): ShutOff(int(until), str(nova), str(detail))
                for hook, (until, nova, detail) in memory["off"].items()
            }
        )

    def dump(self, memory: HookMemory) -> Any:
        """See `Mechanism.dump`."""
        return {"off": {hook: [o.until_ms, o.nova, o.detail] for hook, o in memory.off.items()}}
