"""What a safety mechanism is: it looks (its only effect), and judges what it saw (pure).

A mechanism knows nothing of its siblings. What one finds and another must hear of, such as an
emergency, goes as an event through the store (`events.py`), so that it survives a crash between
the two. What a mechanism remembers is in the store too, written together with the verdict that it
led to: after a crash the next life judges by the same memory, and no event counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from novawf.safety.events import SafetyEvent
from novawf.safety.verdict import Verdict

Seen = TypeVar("Seen")
Memory = TypeVar("Memory")


@dataclass(frozen=True, slots=True)
class Observation(Generic[Seen]):
    """What a mechanism is to judge."""

    at_ms: int
    """When it began to look (fleet ms); old input counts as none."""
    seen: Seen
    events: tuple[SafetyEvent, ...] = ()
    """What was reported since the mechanism last judged, oldest first. Each comes once."""


@dataclass(frozen=True, slots=True)
class Judgement(Generic[Memory]):
    """What a mechanism says, and what it is to remember."""

    verdict: Verdict
    memory: Memory
    holds: Mapping[str, Verdict] = field(default_factory=dict)
    """Nova → what is against that one alone."""
    violations: tuple[SafetyEvent, ...] = ()
    """What it found itself: reported along with the verdict, for all to hear in the next round."""


class Mechanism(Protocol[Seen, Memory]):
    """One reason for which work may have to wait."""

    @property
    def name(self) -> str:
        """Lower case and underscores: it becomes a field's name and a metric's label."""

    @property
    def deadline_s(self) -> float:
        """How long looking and judging may take, `refresh_s` at most; beyond it is unsafe."""

    async def observe(self) -> Seen:
        """Look. Never decides."""

    def evaluate(
        self, observation: Observation[Seen], state: Memory, now_ms: int
    ) -> Judgement[Memory]:
        """Judge what was seen by what is remembered. Pure: no effects, no waiting."""

    def parse(self, memory: Any) -> Memory:
        """What it remembers, from JSON; None: nothing yet. Raises ValueError, KeyError, TypeError
        for anything that `dump` does not write: then it counts as unsafe until it is reset."""

    def dump(self, memory: Memory) -> Any:
        """As JSON."""
