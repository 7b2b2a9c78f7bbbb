"""How long the streams are, and how far behind the fleet is in reading them.

One asker for two clients: the commands are put into a pipeline, plain or asyncio, and the replies
judged by pure functions. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from novawf.store import keys
from novawf.streams.catalogue import GROUP, consumed, protocol

if TYPE_CHECKING:
    from redis.asyncio import Redis

_COUNTED: Final = 100
"""Where the store cannot tell a lag, so many entries are counted one by one."""


class Lag(NamedTuple):
    """How far behind our group is."""

    undelivered: int | None
    """Entries that no reader of ours was given; None where the store cannot tell."""
    pending: int
    """Entries that one was given and has not acknowledged."""
    last_delivered: str

    @property
    def total(self) -> int | None:
        """Entries not consumed yet."""
        return None if self.undelivered is None else self.undelivered + self.pending


class StreamStat(NamedTuple):
    """One stream at one moment."""

    name: str
    length: int
    lag: int | None
    """Entries that the fleet has not consumed; None for a stream that it does not read."""
    pending: int | None
    oldest_age_s: float | None
    """Age of its oldest entry by the store's clock; None when it is empty."""
    bytes: int | None
    """What it takes in the store's memory, as the store estimates it."""


def ask_groups(pipe: Any, streams: Iterable[str]) -> None:
    """Put XINFO GROUPS of each stream into a pipeline; execute it with `raise_on_error=False`."""
    for stream in streams:
        # Names of groups are anybody's, and need not be text.
        pipe.execute_command("XINFO GROUPS", stream, NEVER_DECODE=True)


def judge_groups(length: int, reply: Any) -> Lag:
    """Our group in a reply to `ask_groups`. A stream without it has consumed nothing. Pure."""
    if not isinstance(reply, Exception):
        for group in reply:
            if group["name"] == GROUP.encode():
                undelivered = group.get("lag") if length else 0
                return Lag(undelivered, group["pending"], group["last-delivered-id"].decode())
    return Lag(length, 0, "0-0")


def ask_rest(pipe: Any, stream: str, lag: Lag) -> None:
    """Put into a pipeline what counts entries where the store cannot tell the lag (entries were
    deleted one by one). Their content may be no text, and is not looked at."""
    pipe.execute_command(
        "XRANGE", stream, f"({lag.last_delivered}", "+", "COUNT", _COUNTED, NEVER_DECODE=True
    )


def judge_rest(length: int, reply: Any) -> int:
    """Entries not delivered, from a reply to `ask_rest`; beyond a hundred the whole length, which
    is never too little. Pure."""
    counted = 0 if isinstance(reply, Exception) or reply is None else len(reply)
    return counted if counted < _COUNTED else length


async def stream_statistics(redis: Redis, novas: Sequence[str]) -> list[StreamStat]:
    """Every stream that holds anything, by name, and all that the fleet reads.

    Three round trips. Raises redis' errors.
    """
    client: Any = redis
    read = consumed(novas)
    names = sorted({*protocol(novas), *read, keys.QUARANTINE})
    async with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.xlen(name)
        replies = await pipe.execute(raise_on_error=False)
    lengths = {
        name: length
        for name, length in zip(names, replies, strict=True)
        if isinstance(length, int) and (length or name in read)
    }
    async with client.pipeline(transaction=False) as pipe:
        pipe.time()
        for name in lengths:
            pipe.execute_command("XRANGE", name, "-", "+", "COUNT", 1, NEVER_DECODE=True)
            pipe.execute_command("MEMORY USAGE", name)
        ask_groups(pipe, lengths)
        (now_s, _), *rest = await pipe.execute(raise_on_error=False)
    looked, groups = rest[: 2 * len(lengths)], rest[2 * len(lengths) :]
    lags = {
        name: judge_groups(length, reply)
        for (name, length), reply in zip(lengths.items(), groups, strict=True)
        if name in read
    }
    unknown = [name for name, lag in lags.items() if lag.undelivered is None]
    if unknown:
        async with client.pipeline(transaction=False) as pipe:
            for name in unknown:
                ask_rest(pipe, name, lags[name])
            for name, reply in zip(unknown, await pipe.execute(raise_on_error=False), strict=True):
                lags[name] = lags[name]._replace(undelivered=judge_rest(lengths[name], reply))
    stats = []
    for index, (name, length) in enumerate(lengths.items()):
        first, size = looked[2 * index : 2 * index + 2]
        lag = lags.get(name)
        stats.append(
            StreamStat(
                name=name,
                length=length,
                lag=lag.total if lag else None,
                pending=lag.pending if lag else None,
                oldest_age_s=_age_s(first, now_s),
                bytes=size if isinstance(size, int) else None,
            )
        )
    return stats


def _age_s(reply: Any, now_s: int) -> float | None:
    if isinstance(reply, Exception) or not reply:
        return None
    entry_id = reply[0][0]
    ms = int(bytes(entry_id).partition(b"-")[0])
    return float(max(0.0, now_s - ms / 1000))
