"""Counts how many records on the task streams keep to the protocol, a little at a time.

What was counted, and up to where each stream was read, is kept in the store (`keys.PROTOCOL`), so
counting goes on where another process left it. Anyone may write to these streams: a record that is
no text, a key of another type or a stream that names no Nova is a violation, never an error.

It is telemetry: when records come faster than they are checked, the stream's trimming goes on, and
what left a stream unchecked is not counted.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from novawf.clock import monotonic_s
from novawf.errors import ProtocolViolation
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks.protocol import Compliance, Kind, validate

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.tasks")

_CHECKED = load_script("novawf.tasks", "checked")

CHUNK: Final = 200
"""Records of one stream that are read at once."""
_SCANNED: Final = 1000
"""Keys that one look for new streams goes through: the whole schema of some 90 Novas."""
_BEGINNING: Final = "0-0"


class Stream(NamedTuple):
    """A task stream, and whose it says it is."""

    name: str
    kind: Kind
    nova: str


class ComplianceCheck:
    """Reads what came to the task streams since the last round, and judges it."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self._streams: dict[str, Stream] = {}
        self._scan = 0
        self._whole = False
        self._cursors: dict[str, str] | None = None

    async def figure(self) -> Compliance:
        """What was counted so far, by whomever."""
        valid, all_ = await self.redis.hmget(keys.PROTOCOL, "valid", "all")
        return Compliance.read(valid, all_)

    async def last_violation(self) -> dict[str, Any] | None:
        """The last one found: `stream`, `id`, `field`, `rule`; None when there was none."""
        text = await self.redis.hget(keys.PROTOCOL, "last")
        return json.loads(text) if text else None

    async def round(self, limit_s: float = 0.05) -> bool:
        """Check what is new, for about `limit_s`; whether all of it was.

        Each record is counted once, also when a reply is lost or two processes count.
        """
        until_s = monotonic_s() + limit_s
        await self._look_for_streams()
        left: Sequence[Stream] = tuple(self._streams.values())
        while left:
            left = await self._chunk(left)
            if left and monotonic_s() >= until_s:
                return False
        return True

    async def _look_for_streams(self) -> None:
        """One step through the keys; the first time all of them."""
        while True:
            self._scan, found = await self.redis.scan(
                self._scan, match=_ANY, count=_SCANNED, _type="stream"
            )
            for name in found:
                stream = stream_of(name)
                if stream is not None:
                    self._streams.setdefault(name, stream)
            if self._whole or self._scan == 0:
                self._whole = True
                return

    async def _chunk(self, streams: Sequence[Stream]) -> list[Stream]:
        """Check up to `CHUNK` records of each; those which may have more."""
        cursors = self._cursors
        if cursors is None:
            known = await self.redis.hgetall(keys.PROTOCOL)
            cursors = self._cursors = {
                field.removeprefix("cursor:"): cursor
                for field, cursor in known.items()
                if field.startswith("cursor:")
            }
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                start = f"({cursors.get(stream.name, _BEGINNING)}"
                pipe.execute_command(
                    "XRANGE", stream.name, start, "+", "COUNT", CHUNK, NEVER_DECODE=True
                )
            replies = await pipe.execute(raise_on_error=False)
        found, more, last = [], [], ""
        for stream, entries in zip(streams, replies, strict=True):
            if isinstance(entries, Exception):
                self._forget(stream, entries)
            elif entries:
                faults = [fault for entry in entries if (fault := judge(stream, *entry))]
                end = entries[-1][0].decode()
                before = cursors.get(stream.name, _BEGINNING)
                found.append((stream.name, before, end, len(entries) - len(faults), len(entries)))
                last = json.dumps(faults[-1]) if faults else last
                if len(entries) == CHUNK:
                    more.append(stream)
        if found:
            self._cursors = None  # until we know that ours were the ones that counted
            flat = [value for row in found for value in row]
            counted = await _CHECKED(self.redis, (keys.PROTOCOL,), (last, *flat))
            if all(counted):
                cursors.update({name: end for name, _, end, _, _ in found})
                self._cursors = cursors
        return more

    def _forget(self, stream: Stream, error: Exception) -> None:
        from redis.exceptions import ResponseError  # noqa: PLC0415 - only once it is needed

        if not isinstance(error, ResponseError):
            raise error
        log.warning("%s cannot be checked: %s", stream.name, error)
        del self._streams[stream.name]


def judge(stream: Stream, entry_id: bytes, fields: Mapping[bytes, bytes]) -> dict[str, Any] | None:
    """What is wrong with a record as it came from the store; None for a valid one."""
    try:
        try:
            text = {name.decode(): value.decode() for name, value in fields.items()}
        except UnicodeDecodeError as error:
            raise ProtocolViolation("record", f"is not UTF-8: {error.object[:20]!r}") from None
        validate(stream.kind, text, stream.nova)
    except ProtocolViolation as fault:
        return {
            "stream": stream.name,
            "id": entry_id.decode(),
            "field": fault.field,
            "rule": fault.rule,
        }
    return None


def stream_of(name: str) -> Stream | None:
    """The task stream of this name, or None. Whether its Nova can exist is for `validate`."""
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(name):
            return Stream(name, kind, match[1])
    return None


_ANY: Final = keys.todo("*").removesuffix("todo") + "*"
_PATTERNS: Final[Mapping[Kind, re.Pattern[str]]] = {
    "todo": re.compile(re.escape(keys.todo("\n")).replace("\\\n", "(.+)"), re.DOTALL),
    "progress": re.compile(re.escape(keys.progress("\n")).replace("\\\n", "(.+)"), re.DOTALL),
    "completed": re.compile(re.escape(keys.completed("\n")).replace("\\\n", "(.+)"), re.DOTALL),
}
