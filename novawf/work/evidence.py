"""What the records on the task streams tell of failures. Reading is bounded; judging is pure.

Anyone may write to these streams, so what is no text, or no record, is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from novawf.tasks.model import Outcome

CAUSE_CHARACTERS = 120

_NO_FAILURE = frozenset(
    {Outcome.CANCELLED, Outcome.DEPENDENCY, Outcome.AWAITING_APPROVAL, Outcome.SUCCEEDED}
)
"""Outcomes that somebody wanted, or that only follow from another task's."""

_NO_CAUSE = ("handed back", "stopped", "attempt ", "taken up again", "approved")
"""How the texts of progress records begin that tell of no failure."""

_VARIES = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d{4,}|\d+\.\d+", re.IGNORECASE)
"""Ids, addresses, times and sizes: what differs between two failures of one cause."""


class Record(NamedTuple):
    """One protocol record and when it was written (unix ms, by the store's clock)."""

    at_ms: int
    fields: Mapping[str, str]
    entry_id: str = "0-0"


@dataclass(frozen=True, slots=True)
class Failures:
    """Tasks that failed for one cause."""

    cause: str
    task_ids: tuple[str, ...]
    """Each once, the latest first."""
    records: int
    first_ms: int
    last_ms: int


async def newest_records(
    client: Any, streams: Sequence[str], count: int, after: Mapping[str, str] | None = None
) -> dict[str, list[Record]]:
    """Up to `count` records of each stream, the newest first; one round trip.

    `after`: stream → entry id; what came up to then is left out. A stream that cannot be read has
    no records. Raises redis' errors when the store does not answer.
    """
    async with client.pipeline(transaction=False) as pipe:
        for stream in streams:
            seen = (after or {}).get(stream)
            oldest = f"({seen}" if seen else "-"
            pipe.execute_command(
                "XREVRANGE", stream, "+", oldest, "COUNT", count, NEVER_DECODE=True
            )
        replies = await pipe.execute(raise_on_error=False)
    return {
        stream: [] if isinstance(reply, Exception) else [_record(*entry) for entry in reply or ()]
        for stream, reply in zip(streams, replies, strict=True)
    }


def _record(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Record:
    text = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in (fields or {}).items()
    }
    return Record(int(entry_id.partition(b"-")[0]), text, entry_id.decode())


def cause_of(record: Record) -> str | None:
    """The cause of the failure that a record tells of, without what varies; None for no failure."""
    fields = record.fields
    status, outcome = fields.get("status"), fields.get("outcome", "")
    if status == "blocked" and outcome not in _NO_FAILURE:
        detail = _words(fields.get("results") or fields.get("update") or "")
    elif status == "pending" and fields.get("update"):
        outcome, detail = "retried", fields["update"]
        if detail.startswith(_NO_CAUSE):
            return None
    else:
        return None
    shown = _VARIES.sub("#", " ".join(detail.split()))
    return f"{outcome or 'blocked'}: {shown}"[:CAUSE_CHARACTERS]


def _words(results: str) -> str:
    """The text of `results`, which are JSON (spec §4): mostly one string."""
    try:
        value = json.loads(results)
    except (ValueError, RecursionError):
        return results
    return value if isinstance(value, str) else results


def failures_by_cause(records: Iterable[Record], since_ms: int) -> list[Failures]:
    """The failures since `since_ms` (unix ms), the most frequent cause first. In any order in."""
    found: dict[str, list[Record]] = {}
    for record in records:
        cause = cause_of(record) if record.at_ms >= since_ms else None
        if cause is not None and record.fields.get("task_id"):
            found.setdefault(cause, []).append(record)
    groups = []
    for cause, alike in found.items():
        alike.sort(key=lambda record: (record.at_ms, record.fields["task_id"]), reverse=True)
        task_ids = dict.fromkeys(record.fields["task_id"] for record in alike)
        groups.append(Failures(cause, tuple(task_ids), len(alike), alike[-1].at_ms, alike[0].at_ms))
    return sorted(groups, key=lambda group: (-group.records, group.cause))
