"""Waiting for work without polling, and receiving orders: the Nova's two blocking readers.

Each has a connection of its own, because a blocking read occupies it. Tokens and orders are hints
with a durable truth behind them (the queue, the gate, the cancel mark of a task): one that is lost
costs at most the idle wait.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from novawf.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.workflow")

_RECONNECT_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class WorkWaiter:
    """Waits until work may be there for this Nova."""

    def __init__(self, redis: Redis, nova: str) -> None:
        self.redis: Any = redis
        self._keys = [keys.wake(nova), keys.WAKE_ANY]
        self._read: asyncio.Task[Any] | None = None

    async def wait(self, timeout_s: float, interrupt: asyncio.Event) -> bool:
        """True when a token came; False after `timeout_s` or when `interrupt` is set.

        Raises redis' errors. An interrupted read stays open for the next call, so that no token
        it takes meanwhile is lost.
        """
        if interrupt.is_set():
            return False
        if self._read is None:
            self._read = asyncio.ensure_future(
                self.redis.blpop(self._keys, max(0.01, round(timeout_s, 3)))
            )
        interrupted = asyncio.ensure_future(interrupt.wait())
        try:
            await asyncio.wait({self._read, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
        if not self._read.done():
            return False
        read, self._read = self._read, None
        return read.result() is not None

    async def close(self) -> None:
        """End the open read; a token that it may have taken goes back as a fresh one."""
        read, self._read = self._read, None
        if read is None:
            return
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)


async def read_orders(
    redis: Redis, nova: str, block_s: float, obey: Callable[[dict[str, Any]], None]
) -> None:
    """Hand every order in the Nova's inbox to `obey`, for ever; survives a store that is away."""
    client: Any = redis
    failures = 0
    while True:
        try:
            item = await client.blpop([keys.inbox(nova)], block_s)
        except (RedisError, OSError) as error:
            if failures == 0:
                log.warning("inbox: %s; reconnecting", error)
            await asyncio.sleep(_RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1
            continue
        except UnicodeDecodeError as error:
            log.warning("inbox: an order that cannot be read was dropped: %s", error)
            continue
        failures = 0
        if item is None:
            continue
        try:
            order = json.loads(item[1])
            obey(order)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("inbox: an order that cannot be read was dropped: %s", error)
