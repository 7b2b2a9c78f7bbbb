"""How a completed task is celebrated: level and impact, decided from evidence and style alone.

Impact is what the task was worth to whoever submitted it, so it follows its priority. Level is how
much there is to celebrate: what the task was worth, what was overcome, how long it took; then the
Nova's style colours it (`[personality.NAME] celebration`).
"""

from __future__ import annotations

from typing import NamedTuple

from novawf.completion.evidence import Evidence

LEVELS = ("quiet", "warm", "bright", "grand")
"""From the least to the most."""

IMPACTS = ("background", "low", "medium", "high", "critical")
"""From the least to the most: the tiers, by their own names."""

LONG_S = 60.0
VERY_LONG_S = 3600.0


class Celebration(NamedTuple):
    """What a celebration record says of a task."""

    level: str
    impact: str


def celebrate(evidence: Evidence, style: str) -> Celebration:
    """The celebration of one task."""
    impact = IMPACTS.index(evidence.priority) if evidence.priority in IMPACTS else 2
    duration_s = evidence.duration_s or 0.0
    effort = (duration_s >= LONG_S) + (duration_s >= VERY_LONG_S)
    overcome = min(2, evidence.attempts - 1)
    points = (impact >= 3) + (impact >= 4) + overcome + effort
    beaten = evidence.estimated_s is not None and 0 < duration_s < evidence.estimated_s / 2
    return Celebration(_styled(points, style, bool(overcome) or beaten), IMPACTS[impact])


def celebrate_burst(count: int, style: str) -> Celebration:
    """The celebration of `count` tasks that ended so fast that they share one record."""
    points = (count >= 10) + (count >= 100) + (count >= 1000)
    return Celebration(_styled(points, style, False), "medium")


def _styled(points: int, style: str, surprised: bool) -> str:
    """The level that a Nova of this style gives to so many points; an unknown style adds nothing.

    `surprised`: it took several attempts, or half the time that was expected.
    """
    if style == "constant_energy":
        return "warm"
    if (style == "burst_energy" and points >= 2) or (style == "adaptive_energy" and surprised):
        points += 1
    elif style == "measured_energy":
        points -= 1
    return LEVELS[max(0, min(points, len(LEVELS) - 1))]
