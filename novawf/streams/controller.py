"""One reader for all streams of the fleet: a consumer group, finite blocks, nothing lost.

It speaks to the store and decides nothing: what an entry means, whether it is acknowledged and
how often it is tried is the service's business (`service.py`). All its calls go one after the
other over one connection whose replies are bytes, for the entries are anybody's.

What it relies on, of the store:

* An entry is delivered once to the group and stays *pending* until it is acknowledged; whoever
  reads may die in between. `pending` and `take` find such entries again.
* A group is created at id 0, so what was added before the fleet started is read.
* Groups vanish with their stream (DEL, FLUSHALL, a store restored from an older copy). The next
  read then fails with NOGROUP; on Dragonfly a blocked one is not even woken, hence the finite
  block (facts.md). `read` makes the groups again: a consumer never stays deaf.
* A key of another type among the streams fails the whole read. It is left out, and looked at again
  at each `recheck`, so that one broken key does not silence the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis.exceptions import ResponseError

from novawf.streams.catalogue import GROUP
from novawf.streams.entry import Entry, entry_of

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.streams.config import StreamSettings

log = logging.getLogger("novawf.streams")

CONSUMER: Final = "fleet"
"""One name for every life of the reader: what a former life left pending is found under it."""

LATE_S: Final = 2.0
"""A reply this much later than its block is given up: the connection may be dead without a sign."""

_ODD_READS: Final = 3
"""So many refusals of a read in a row are no matter of missing groups: the caller backs off."""

_PAGE: Final = 100


class Pending(NamedTuple):
    """An entry that was delivered and not acknowledged."""

    stream: str
    id: str
    deliveries: int


class StreamController:
    """Reads streams as one consumer of the group `novawf`."""

    def __init__(
        self,
        redis: Redis,
        settings: StreamSettings,
        streams: Iterable[str],
        consumer: str = CONSUMER,
    ) -> None:
        self.redis: Any = redis
        self.settings = settings
        self.consumer = consumer
        self.streams = list(dict.fromkeys(streams))
        """The most urgent first: a reply has them in this order."""
        self._readable: list[str] = []
        self._broken: set[str] = set()
        self._prepared = False
        self._odd_reads = 0

    def follow(self, streams: Iterable[str]) -> None:
        """From now on read exactly these. An open read ends first, within its block."""
        self.streams = list(dict.fromkeys(streams))
        self._prepared = False

    def recheck(self) -> None:
        """Before the next read, look whether streams that could not be read can be now."""
        if self._broken:
            self._prepared = False

    async def prepare(self) -> None:
        """Make sure that each stream has our group. Raises redis' errors."""
        streams = self.streams  # `follow` may replace it meanwhile: then it is prepared again
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.execute_command("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")
            replies = await pipe.execute(raise_on_error=False)
        broken = set()
        for stream, reply in zip(streams, replies, strict=True):
            if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                if "WRONGTYPE" not in str(reply):
                    raise reply  # no fault of this stream: the store is full, or we may not
                broken.add(stream)
                if stream not in self._broken:
                    log.error("%s is no stream, so nobody reads it: delete that key", stream)
        self._broken = broken
        self._readable = [stream for stream in streams if stream not in broken]
        self._prepared = self.streams is streams

    async def read(self, block_s: float) -> list[Entry]:
        """New entries, at most `batch` of each stream; waits up to `block_s` for the first.

        They are pending from now on. Raises redis' errors and TimeoutError; then entries may be
        pending that nobody has seen.
        """
        if not self._prepared:
            await self.prepare()
        if not self._readable:
            await asyncio.sleep(block_s)
            return []
        block_ms = max(1, round(block_s * 1000))
        try:
            async with asyncio.timeout(block_s + LATE_S):
                reply = await self.redis.execute_command(
                    "XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", self.settings.batch,
                    "BLOCK", block_ms, "STREAMS", *self._readable, *(">" for _ in self._readable),
                )  # fmt: skip
        except ResponseError as error:
            self._prepared = False
            self._odd_reads += 1
            if self._odd_reads >= _ODD_READS:
                raise
            log.warning("the streams' groups are gone (%s); they are made again", error)
            return []
        self._odd_reads = 0
        return [entry_of(name.decode(), item) for name, entries in reply or () for item in entries]

    async def pending(self, idle_s: float, *, own: bool) -> list[Pending]:
        """Entries delivered and not acknowledged for `idle_s`, up to a hundred of each stream.

        `own`: only what was delivered to a reader of our name. Raises redis' errors.
        """
        if not self._prepared:
            await self.prepare()
        idle = ("IDLE", round(idle_s * 1000)) if idle_s > 0 else ()
        whose = (self.consumer,) if own else ()
        async with self.redis.pipeline(transaction=False) as pipe:
            for stream in self._readable:
                pipe.execute_command("XPENDING", stream, GROUP, *idle, "-", "+", _PAGE, *whose)
            replies = await pipe.execute(raise_on_error=False)
        found = []
        for stream, reply in zip(self._readable, replies, strict=True):
            if isinstance(reply, ResponseError):
                self._prepared = False  # its group is gone: the next read makes it again
            elif isinstance(reply, Exception):
                raise reply
            else:
                found += [
                    Pending(stream, entry_id.decode(), deliveries)
                    for entry_id, _, _, deliveries in reply
                ]
        return found

    async def take(self, pending: Pending, idle_s: float, deliveries: int) -> Entry | None:
        """Take an entry over and read it; the store then holds `deliveries` as its count.

        The count is given, not added, so that a repeat after a lost reply leaves it as it is.
        None when it is not there to be taken: deleted, acknowledged, or in another's hands by now.
        Raises redis' errors.
        """
        stream, entry_id, _ = pending
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.execute_command(
                "XCLAIM", stream, GROUP, self.consumer, round(idle_s * 1000), entry_id,
                "RETRYCOUNT", deliveries, "JUSTID",
            )  # fmt: skip
            pipe.execute_command("XRANGE", stream, entry_id, entry_id)
            claimed, entries = await pipe.execute()
        if not entries:
            await self.acknowledge(stream, [entry_id])  # deleted: nobody can handle it any more
            return None
        return entry_of(stream, entries[0]) if claimed else None

    async def acknowledge(self, stream: str, entry_ids: Iterable[str]) -> None:
        """These are done; a repeat changes nothing. Raises redis' errors."""
        await self.redis.execute_command("XACK", stream, GROUP, *entry_ids)


def raw_replies(redis: Redis) -> Redis:
    """Let a client answer stream commands as the store sent them.

    redis-py makes dictionaries of entries, which hide a field that is given twice.
    """
    client: Any = redis
    for command in ("XREADGROUP", "XRANGE", "XPENDING", "XCLAIM"):
        client.set_response_callback(command, _as_it_is)
    return redis


def _as_it_is(reply: Any, **_: Any) -> Any:
    return reply
