"""What the mechanisms remember, as the store keeps it: one field a mechanism, in one hash.

A field is a JSON object: `v` the schema's version, `cursor` the last safety event that the
mechanism has judged, `memory` what it remembers, `verdict` and `holds` what it said last, for
people. Pure, but for `reset`, which is the repair of a field that cannot be read: by a person's
order only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from novawf.errors import CorruptState
from novawf.safety.verdict import Action, SafetyLevel, Verdict
from novawf.store import keys
from novawf.store.connect import translate_errors

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.store.connect import StoreAddress

VERSION = 1
BEGINNING = "0-0"
EPOCH = "epoch"
"""Field of the hash: the writer's fencing token."""
ORCHESTRATOR = "orchestrator"
"""Field of the hash: the cursor up to which violations were posted."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """One mechanism's field. `memory` is JSON, still to be read by the mechanism."""

    cursor: str = BEGINNING
    memory: Any = None
    verdict: Verdict | None = None
    holds: Mapping[str, Verdict] = field(default_factory=dict)

    def to_json(self) -> str:
        """As the store keeps it."""
        fields: dict[str, Any] = {"v": VERSION, "cursor": self.cursor, "memory": self.memory}
        if self.verdict is not None:
            fields["verdict"] = _shown(self.verdict)
        if self.holds:
            fields["holds"] = {nova: _shown(verdict) for nova, verdict in self.holds.items()}
        return json.dumps(fields, separators=(",", ":"), sort_keys=True)

    @classmethod
    def parse(cls, name: str, text: str | None) -> Remembered:
        """Raises CorruptState, which names the repair."""
        if text is None:
            return cls()
        try:
            fields = json.loads(text)
            if fields["v"] != VERSION:
                raise ValueError(f"it is of version {fields['v']}, this is version {VERSION}")
            cursor = str(fields["cursor"])
            ms, _, number = cursor.partition("-")
            int(ms), int(number)
            verdict = fields.get("verdict")
            return cls(
                cursor,
                fields["memory"],
                None if verdict is None else _read(verdict),
                {str(nova): _read(row) for nova, row in fields.get("holds", {}).items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise unreadable(name, error) from None


def unreadable(name: str, error: Exception) -> CorruptState:
    """That a mechanism's memory is not what it wrote, and how to repair it."""
    said = " ".join(str(error).split())[:120]
    return CorruptState(
        f"what {name} remembers cannot be read ({type(error).__name__}: {said}); "
        f"`novawf safety reset {name}` lets it begin anew"
    )


async def reset(redis: Redis, name: str, store: StoreAddress | str = "its URL") -> None:
    """Let a mechanism forget: it has judged all events so far, and remembers nothing.

    A hash or a stream of another type is removed first; other mechanisms in it are lost with it,
    and begin anew too. Raises StoreUnreachable.
    """
    client: Any = redis
    with translate_errors(store):
        if await client.type(keys.SAFETY_EVENTS) not in ("stream", "none"):
            await client.delete(keys.SAFETY_EVENTS)
        if await client.type(keys.SAFETY_STATE) not in ("hash", "none"):
            await client.delete(keys.SAFETY_STATE)
        last = await client.xrevrange(keys.SAFETY_EVENTS, count=1)
        cursor = last[0][0] if last else BEGINNING
        await client.hset(keys.SAFETY_STATE, name, Remembered(cursor).to_json())


def _shown(verdict: Verdict) -> list[Any]:
    action, level = verdict.recommended_action.word, verdict.safety_level.name.lower()
    return [action, level, verdict.reason, verdict.until_ms]


def _read(row: list[Any]) -> Verdict:
    action, level, reason, until_ms = row
    return Verdict(
        Action[action.upper()], str(reason), SafetyLevel[level.upper()], 0, int(until_ms)
    )
