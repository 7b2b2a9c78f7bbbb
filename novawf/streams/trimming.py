"""Streams are kept short: by age and by length, and only past what every reader has consumed.

**The guarantee.** No entry leaves a stream that a consumer group on it has not yet been delivered
*and* acknowledged. It holds while others read, add, acknowledge and trim at the same time: a bound
is computed from the groups as they were at one moment, and after it groups only move forward; what
is removed lies before that bound, whatever has been added since. A group that is created (or set
back) while a trim is under way is treated as created right after it. A group that nobody reads any
more holds its stream for ever: that is said in the log, and its owner has to remove it
(`XGROUP DESTROY`).

Ages are in fleet time, which does not jump; entries carry the store's wall time. Trimming is exact,
not `~`: an entry of the work queue must not outlive the memory of what became of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from novawf.clock import Clock
from novawf.errors import Refused
from novawf.store.scripts import load_script
from novawf.streams.archive_streams import StreamArchive
from novawf.streams.catalogue import protocol
from novawf.streams.config import StreamSettings
from novawf.streams.entry import id_order, next_id

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.streams")

_SHORTEN = load_script("novawf.streams", "shorten")
_LOOK_AT: Final = 100
_LOOKS: Final = 500
"""At most so many times that many entries are looked at in one round; the next goes on."""
_HOUR_MS: Final = 3_600_000


class Trimmed(NamedTuple):
    """What one round did."""

    removed: int
    held: dict[str, str]
    """Stream → the group for which entries stay that are too old or too many."""


class Trimmer:
    """Trims all streams of the protocol."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: StreamSettings,
        archive: StreamArchive | None = None,
    ) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.settings = settings
        self.archive = archive
        """Where entries go before they are removed; None: nowhere."""

    async def trim(self, novas: Iterable[str]) -> Trimmed:
        """One round over the streams of these Novas and of the fleet. Raises redis' errors."""
        removed, held = 0, {}
        lengths = await self._lengths(protocol(novas))
        oldest_kept = f"{max(0, self.clock.now_ms() - round(self.settings.max_age_h * _HOUR_MS))}-0"
        for stream, groups in (await self._groups(list(lengths))).items():
            first = first_unconsumed(groups)
            keep_from = oldest_kept
            if first is not None and id_order(first.id) < id_order(oldest_kept):
                keep_from = first.id
            gone = await self._trim_to(stream, keep_from)
            left = lengths[stream] - gone
            if self.archive is not None and left > self.settings.max_length:
                excess = left - self.settings.max_length
                more = await self._trim_to(stream, first.id if first else None, excess)
                gone, left = gone + more, left - more
            # What cannot be archived, or not as fast as it comes, goes without: memory is bounded.
            most = self.settings.max_length * (1 if self.archive is None else 2)
            if left > most:
                more = await self._shorten(stream, first)
                gone, left = gone + more, left - more
            removed += gone
            if first is not None and (
                left > self.settings.max_length
                or (keep_from != oldest_kept and await self._begins_before(stream, oldest_kept))
            ):
                held[stream] = first.group
        return Trimmed(removed, held)

    async def _trim_to(self, stream: str, keep_from: str | None, most: int | None = None) -> int:
        """Remove entries before an id, at most so many, once they are archived; how many."""
        if self.archive is not None:
            try:
                keep_from = await self.archive.keep(stream, keep_from, most)
            except Refused as error:
                log.error("%s is not trimmed by age: %s", stream, error)
                return 0
        if keep_from is None:
            return 0
        return int(await self.redis.execute_command("XTRIM", stream, "MINID", "=", keep_from))

    async def _lengths(self, streams: Sequence[str]) -> dict[str, int]:
        """Streams that hold anything, and how much. A key of another type is none of ours."""
        replies = await self._ask([("XLEN", stream) for stream in streams])
        return {
            stream: reply
            for stream, reply in zip(streams, replies, strict=True)
            if isinstance(reply, int) and reply
        }

    async def _groups(self, streams: Sequence[str]) -> dict[str, list[Group]]:
        """Each stream's groups. What is pending is asked for after what was delivered, so that a
        delivery in between counts as not made: its entry lies after the bound."""
        infos = await self._ask([("XINFO GROUPS", stream) for stream in streams])
        found: dict[str, list[Group]] = {}
        wanted: list[tuple[str, bytes, str]] = []
        for stream, reply in zip(streams, infos, strict=True):
            if not isinstance(reply, Exception):  # otherwise it was deleted in between
                found[stream] = []
                wanted += (
                    (stream, info["name"], info["last-delivered-id"].decode()) for info in reply
                )
        pendings = await self._ask([("XPENDING", stream, name) for stream, name, _ in wanted])
        for (stream, name, last), reply in zip(wanted, pendings, strict=True):
            if not isinstance(reply, Exception):  # otherwise the group was destroyed in between
                oldest = reply["min"]
                found[stream].append(
                    Group(name.decode(errors="replace"), last, oldest and oldest.decode())
                )
        return found

    async def _shorten(self, stream: str, first: Unconsumed | None) -> int:
        """Remove entries beyond the length; answers how many."""
        length = self.settings.max_length
        if first is None:
            # Nobody's entries: the newest of them stay, those added in this moment included.
            return int(await self.redis.execute_command("XTRIM", stream, "MAXLEN", "=", length))
        removed = 0
        for _ in range(_LOOKS):
            gone = int(await _SHORTEN(self.redis, (stream,), (first.id, length, _LOOK_AT)))
            if gone == 0:
                break
            removed += gone
        return removed

    async def _begins_before(self, stream: str, entry_id: str) -> bool:
        (entries,) = await self._ask([("XRANGE", stream, "-", "+", "COUNT", "1")])
        return bool(entries) and id_order(entries[0][0].decode()) < id_order(entry_id)

    async def _ask(self, commands: Sequence[tuple[str | bytes, ...]]) -> list[Any]:
        """One round trip, replies in bytes: names of groups are anybody's. A reply that is the
        store's refusal stands for itself."""
        if not commands:
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command, NEVER_DECODE=True)
            replies = await pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, ResponseError):
                raise reply
        return list(replies)


class Group(NamedTuple):
    """A consumer group: what it was delivered last, and its oldest entry not acknowledged."""

    name: str
    last_delivered: str
    oldest_pending: str | None


class Unconsumed(NamedTuple):
    """The first id that some group has not consumed, and that group."""

    id: str
    group: str


def first_unconsumed(groups: Iterable[Group]) -> Unconsumed | None:
    """Where consumption stands over all groups; None where there is no group. Pure."""
    bounds = [
        Unconsumed(
            min(
                (next_id(group.last_delivered), *filter(None, (group.oldest_pending,))),
                key=id_order,
            ),
            group.name,
        )
        for group in groups
    ]
    return min(bounds, key=lambda bound: id_order(bound.id), default=None)
