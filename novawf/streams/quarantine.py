"""Where stream entries go that nobody can use: kept with the reason, counted, blocking nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from novawf.clock import Clock, iso
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.streams.catalogue import GROUP
from novawf.streams.entry import Entry, excerpt
from novawf.telemetry.counters import number

if TYPE_CHECKING:
    from redis.asyncio import Redis

_QUARANTINE = load_script("novawf.streams", "quarantine")
_COUNTED: Final = "quarantined:"
_REASON_CHARACTERS: Final = 500


class Quarantine:
    """Refuses entries, each once."""

    def __init__(self, redis: Redis, clock: Clock, length: int) -> None:
        self.redis = redis
        self.clock = clock
        self.length = length

    async def put(self, entry: Entry, reason: str) -> bool:
        """Acknowledge an entry of ours and keep it with the reason.

        False when it was not pending any more: then somebody has dealt with it. Raises redis'
        errors; nothing was changed then, or all of it.
        """
        reply = await _QUARANTINE(
            self.redis,
            (entry.stream, keys.QUARANTINE, keys.SIGNAL_COUNTS),
            (
                GROUP, entry.id, " ".join(reason.split())[:_REASON_CHARACTERS], excerpt(entry),
                iso(self.clock.wall_s()), self.length,
            ),
        )  # fmt: skip
        return int(reply) == 1


async def quarantined(redis: Redis, limit: int | None = None) -> list[dict[str, Any]]:
    """Refused entries, the oldest first, of a longer list the newest `limit`:
    `{stream, id, reason, at, fields}`. `fields` are cut to what people need to recognise it."""
    client: Any = redis
    entries = await client.xrevrange(keys.QUARANTINE, count=limit)
    return [_row(fields) for _, fields in reversed(entries)]


def quarantine_counts(counts: Mapping[str, str]) -> dict[str, int]:
    """Stream → entries ever refused, from the hash `keys.SIGNAL_COUNTS`."""
    return {
        field.removeprefix(_COUNTED): number(value)
        for field, value in sorted(counts.items())
        if field.startswith(_COUNTED)
    }


def _row(record: Mapping[str, str]) -> dict[str, Any]:
    """A record that somebody else put there shows what can be shown of it."""
    row: dict[str, Any] = {name: record.get(name, "") for name in ("stream", "id", "reason", "at")}
    try:
        row["fields"] = json.loads(record.get("fields", "{}"))
    except ValueError:
        row["fields"] = {}
    return row
