"""Insight consolidation: a Nova draws its own new reflections together into one insight.

Insights are personal (spec §8): each Nova reads and writes its own stream alone, and the task's
result, which everybody may see, holds numbers and no texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from novawf.clock import iso
from novawf.store import keys
from novawf.work.evidence import Record, newest_records
from novawf.work.jobs.table import JobContext

READ: Final = 200
"""Newest insights looked at."""

FEWEST: Final = 3
"""Fewer new reflections are left to the next time."""

MOST: Final = 5
"""Texts named of each kind."""

KIND: Final = "consolidated"

_TEXTS: Final = {"skill": "skills", "lessons": "lessons", "improvements": "improvements"}


async def consolidate_insights(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"reflections", "written", "skills", "lessons", "improvements"}`: how many of each."""
    stream = keys.insights(context.nova)
    records = (await newest_records(context.client, [stream], READ))[stream]
    fresh = _since_the_last(records)
    counted = {plural: _texts(fresh, field) for field, plural in _TEXTS.items()}
    figures: dict[str, Any] = {plural: len(texts) for plural, texts in counted.items()}
    if len(fresh) >= FEWEST:
        fields = {
            "type": KIND,
            "timestamp": iso(context.clock.wall_s()),
            "reflections": str(len(fresh)),
            "signs": _most(_signs(fresh)),
            **{plural: _most(texts) for plural, texts in counted.items()},
        }
        await context.client.xadd(stream, {name: text for name, text in fields.items() if text})
    return {"reflections": len(fresh), "written": len(fresh) >= FEWEST, **figures}


def _since_the_last(records: Iterable[Record]) -> list[Mapping[str, str]]:
    """The reflections newer than the last consolidated insight."""
    fresh = []
    for record in records:
        kind = record.fields.get("type")
        if kind == KIND:
            break
        if kind == "reflection":
            fresh.append(record.fields)
    return fresh


def _signs(reflections: Iterable[Mapping[str, str]]) -> Counter[str]:
    return Counter(
        sign for fields in reflections for sign in fields.get("signs", "").split(",") if sign
    )


def _texts(reflections: Iterable[Mapping[str, str]], field: str) -> Counter[str]:
    return Counter(text for fields in reflections if (text := fields.get(field, "").strip()))


def _most(counted: Counter[str]) -> str:
    """`text (n)`, the most frequent first."""
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{text} ({count})" for text, count in ranked[:MOST])
