"""What a Nova does with its personal phase: it goes over its own insights and draws them together.

Pure: from the insights since the last time to one summary. Private like the insights themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MOST = 5
"""How many skills and improvements a summary names."""


class Summary(NamedTuple):
    """What a personal insight says. Texts joined by `; `."""

    reflections: int
    signs: str
    """Sign and how often, the most frequent first: `first_attempt 17; retried 3`."""
    skills: str
    improvements: str


def consolidate(insights: Iterable[Mapping[str, str]]) -> Summary:
    """Draw insight records together; what are no reflections on tasks are left out."""
    reflections = 0
    signs: Counter[str] = Counter()
    skills: Counter[str] = Counter()
    improvements: Counter[str] = Counter()
    for insight in insights:
        if insight.get("type") != "reflection":
            continue
        reflections += 1
        signs.update(filter(None, insight.get("signs", "").split(",")))
        skill = insight.get("skill", "")
        skills.update(filter(None, [skill.rpartition(" in ")[0] or skill]))
        improvements.update(filter(None, insight.get("improvements", "").split("; ")))
    return Summary(
        reflections, _most(signs, len(signs)), _most(skills, MOST), _most(improvements, MOST)
    )


def _most(counted: Counter[str], number: int) -> str:
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{name} {count}" for name, count in ranked[:number])
