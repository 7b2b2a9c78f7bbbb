"""Really Chill Willy: when it has been too much, the fleet meditates (spec §5.2).

More than five bang counts (emergencies) or more than three stacked cooldowns within an hour lead
to a meditation of half an hour. A person's emergency stop is no bang: people drill it. It also
watches over the machine: while that is overloaded nothing starts, and each time counts as a bang.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from novawf.safety.events import Kind, SafetyEvent
from novawf.safety.mechanism import Judgement, Observation
from novawf.safety.readings import Readings
from novawf.safety.verdict import Action, safe, unsafe

if TYPE_CHECKING:
    from novawf.safety.config import WillySettings

BANGS = frozenset({Kind.EMERGENCY, Kind.SYSTEM_OVERLOAD})
RELIEF = 0.8
"""An overload is over once every reading is so far inside its bound: no flutter."""


@dataclass(frozen=True, slots=True)
class WillyMemory:
    """Times in fleet ms."""

    bangs: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    meditates_until: int = 0
    why: str = ""
    over_since: int = 0
    """Since when some reading is beyond its bound; 0: none is."""
    overloaded: bool = False


class ReallyChillWilly:
    """The mechanism. `read` gives the machine's readings; it may block for a millisecond."""

    name = "really_chill_willy"
    deadline_s = 1.0

    def __init__(
        self, settings: WillySettings, valid_s: float, read: Callable[[], Readings]
    ) -> None:
        self._settings = settings
        self._valid_ms = round(valid_s * 1000)
        self._read = read

    async def observe(self) -> Readings:
        """Read the machine."""
        return self._read()

    def evaluate(
        self, observation: Observation[Readings], state: WillyMemory, now_ms: int
    ) -> Judgement[WillyMemory]:
        """Pause while it meditates, or while the machine is overloaded."""
        expires_ms = now_ms + self._valid_ms
        state = self._counted(state, observation.events, now_ms)
        state, violations = self._loaded(state, observation.seen, now_ms)
        if state.meditates_until > now_ms:
            verdict = unsafe(
                f"the fleet meditates: {state.why}", expires_ms, Action.PAUSE, state.meditates_until
            )
        elif state.overloaded:
            verdict = unsafe(
                f"the machine is overloaded: {overload(observation.seen, self._settings, RELIEF)}",
                expires_ms,
            )
        else:
            verdict = safe(f"chill: {observation.seen.text()}", expires_ms)
        return Judgement(verdict, state, violations=violations)

    def _counted(
        self, state: WillyMemory, events: tuple[SafetyEvent, ...], now_ms: int
    ) -> WillyMemory:
        settings = self._settings
        since_ms = now_ms - round(settings.window_s * 1000)

        def recent(before: tuple[int, ...], kinds: frozenset[Kind]) -> tuple[int, ...]:
            new = (min(event.at_ms, now_ms) for event in events if event.kind in kinds)
            return tuple(at_ms for at_ms in (*before, *new) if at_ms > since_ms)

        state = replace(
            state,
            bangs=recent(state.bangs, BANGS),
            stacked=recent(state.stacked, frozenset({Kind.STACKED_COOLDOWN})),
        )
        within = f"within {settings.window_s / 3600:g} h"
        if len(state.bangs) > settings.bangs:
            why = f"{len(state.bangs)} emergencies {within}, more than {settings.bangs}"
        elif len(state.stacked) > settings.stacked:
            why = f"{len(state.stacked)} stacked cooldowns {within}, more than {settings.stacked}"
        else:
            return state
        # What led here is dealt with: the counts begin anew.
        until_ms = now_ms + round(settings.meditation_s * 1000)
        return replace(state, bangs=(), stacked=(), meditates_until=until_ms, why=why)

    def _loaded(
        self, state: WillyMemory, seen: Readings, now_ms: int
    ) -> tuple[WillyMemory, tuple[SafetyEvent, ...]]:
        if state.overloaded:
            over = bool(overload(seen, self._settings, RELIEF))
            return replace(state, overloaded=over, over_since=0), ()
        why = overload(seen, self._settings, 1.0)
        if not why:
            return replace(state, over_since=0), ()
        since_ms = state.over_since or now_ms
        if now_ms - since_ms < self._settings.overload_s * 1000:
            return replace(state, over_since=since_ms), ()
        begun = SafetyEvent(Kind.SYSTEM_OVERLOAD, self.name, why)
        return replace(state, overloaded=True, over_since=0), (begun,)

    def parse(self, memory: Any) -> WillyMemory:
        """See `Mechanism.parse`."""
        if memory is None:
            return WillyMemory()
        return WillyMemory(
            tuple(map(int, memory["bangs"])),
            tuple(map(int, memory["stacked"])),
            int(memory["meditates_until"]),
            str(memory["why"]),
            int(memory["over_since"]),
            bool(memory["overloaded"]),
        )

    def dump(self, memory: WillyMemory) -> Any:
        """See `Mechanism.dump`."""
        return {
            "bangs": list(memory.bangs),
            "stacked": list(memory.stacked),
            "meditates_until": memory.meditates_until,
            "why": memory.why,
            "over_since": memory.over_since,
            "overloaded": memory.overloaded,
        }


def overload(seen: Readings, settings: WillySettings, share: float) -> str:
    """Which reading is beyond `share` of its bound, in words; '' none. A reading that the machine
    does not give is none that could be beyond."""
    load, left, pressure = seen.load_per_core, seen.memory_left_share, seen.memory_pressure
    if load > settings.load_per_core * share:
        return f"a load of {load:.1f} for each core, {settings.load_per_core:g} is the bound"
    if left is not None and left < settings.memory_left_share / share:
        return (
            f"{left:.1%} of the memory is available, {settings.memory_left_share:.0%} is the bound"
        )
    if pressure is not None and pressure > settings.memory_pressure * share:
        return (
            f"everything waits for memory {pressure:.0f} % of the time, "
            f"{settings.memory_pressure:g} % is the bound"
        )
    return ""
