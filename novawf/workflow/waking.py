"""Waiting for work without polling, and receiving orders: the Nova's two blocking readers.

Each has a connection of its own, because a blocking read occupies it. Tokens and orders are hints
with a durable truth behind them (the queue, the gate, the cancel mark of a task): one that is lost
costs at most the idle wait.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError

from novawf.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.workflow")

BLOCK_S = 60.0
"""Longest blocking read. Each costs two commands; who waits is told of work by it at once."""
ASK_ANEW = -8
"""What a claim answers that waited, and knows of no admission that has ended its wait."""

_RECONNECT_S = (0.05, 0.1, 0.25, 0.5, 1.0)


Ask = Callable[[], tuple[str, Sequence[str], Sequence[str]]]
"""A claim to be sent behind the blocking read: SHA-1 of its script, keys, arguments."""


class WorkWaiter:
    """Waits until work may be there for this Nova.

    With `ask` a claim is sent along behind the blocking read. The store carries it out as soon as
    the read ends, so token and task arrive together: one round trip and two wake-ups of processes
    less between a submission and its start. `asked` tells that a claim is on its way there.
    """

    def __init__(self, redis: Redis, nova: str, ask: Ask | None = None) -> None:
        self.redis: Any = redis
        self.ask = ask
        self.asked = False
        self._keys = [keys.wake(nova), keys.WAKE_ANY]
        self._read: asyncio.Task[tuple[bool, list[Any] | None]] | None = None
        self._answer: list[Any] | None = None

    async def wait(self, timeout_s: float, interrupt: asyncio.Event) -> bool:
        """True when a token or an answer came; False after `timeout_s` or when `interrupt` is set.

        Raises redis' errors. A read that is not over stays open for the next call, so that no
        token it takes meanwhile is lost.
        """
        if interrupt.is_set():
            return False
        if self._read is None:
            asked = self.ask() if self.ask is not None else None
            self.asked = asked is not None
            self._read = asyncio.ensure_future(self._read_token(asked))
        interrupted = asyncio.ensure_future(interrupt.wait())
        try:
            await asyncio.wait(
                {self._read, interrupted},
                timeout=max(0.001, timeout_s),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            interrupted.cancel()
        if not self._read.done():
            return False
        return self._take(self._read)

    @property
    def reading(self) -> bool:
        """Whether a read is open, of which nobody knows yet how it ends."""
        return self._read is not None

    @property
    def answer_came(self) -> bool:
        """Whether `take_answer` has one."""
        return self._answer is not None

    def take_answer(self) -> list[Any] | None:
        """The answer to the claim that was sent along, once."""
        answer, self._answer = self._answer, None
        return answer

    async def close(self) -> None:
        """End the open read. A claim on its way may have been carried out: repeat it."""
        read, self._read = self._read, None
        self.asked = False
        if read is None:
            return
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)

    def _take(self, read: asyncio.Task[tuple[bool, list[Any] | None]]) -> bool:
        self._read = None
        self.asked = False
        token, self._answer = read.result()
        return token or self._answer is not None

    async def _read_token(
        self, asked: tuple[str, Sequence[str], Sequence[str]] | None
    ) -> tuple[bool, list[Any] | None]:
        """Whether a token came, and what the claim behind it was answered."""
        if asked is None:
            return await self.redis.blpop(self._keys, BLOCK_S) is not None, None
        pool = self.redis.connection_pool
        connection = await pool.get_connection()
        try:
            sha1, claim_keys, arguments = asked
            packed = [
                *connection.pack_command("BLPOP", *self._keys, BLOCK_S),
                *connection.pack_command("EVALSHA", sha1, len(claim_keys), *claim_keys, *arguments),
            ]
            await connection.send_packed_command(packed)
            token = await connection.read_response()
            try:
                answer = await connection.read_response()
            except NoScriptError:
                answer = [ASK_ANEW]
            if token is None and answer[0] == ASK_ANEW:
                answer = None  # the read was over without work
            return token is not None, answer
        except BaseException:
            await connection.disconnect(nowait=True)  # answers may be on their way
            raise
        finally:
            await pool.release(connection)


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
