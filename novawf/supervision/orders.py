"""Orders to the running supervisor, and its answers: two lists in the store.

An order says what is wanted (this Nova is to run, these are to be restarted), so giving it twice is
giving it once. It is carried out within the time for which its giver waits, or not at all: one that
a supervisor finds later belongs to somebody who has given up. An order that was taken by a
supervisor that then died is lost; its giver hears nothing and says so.

Not here: what an order does (`actors/`).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from novawf.clock import Clock, monotonic_s
from novawf.errors import NoAnswer
from novawf.ids import hex_token
from novawf.store import keys

if TYPE_CHECKING:
    from redis.asyncio import Redis

TAKEN_WITHIN_S = 10.0
"""How long an order waits for a supervisor to take it."""

SILENT_S = 600.0
"""The longest pause between two answers to one order: a Nova may end a long task first."""

KEPT_S = 3600
"""How long answers that nobody reads stay."""

BLOCK_S = 30.0
"""Longest blocking read of orders; answers are read for at most as long at a time."""


@dataclass(frozen=True, slots=True)
class Order:
    """Something a person wants of the supervisor. `what` is the order's own fields."""

    id: str
    op: str
    by: str
    until_ms: int
    """Fleet time after which it is not begun any more."""
    what: dict[str, Any]


async def give(
    redis: Redis, clock: Clock, op: str, *, by: str = "client", **what: Any
) -> AsyncIterator[dict[str, Any]]:
    """Give an order; yields each answer, the last one with `done`. Raises NoAnswer."""
    client: Any = redis
    order = hex_token()
    answers = keys.answers(order)
    until_ms = clock.now_ms() + round(TAKEN_WITHIN_S * 1000)
    text = json.dumps({"id": order, "op": op, "by": by, "until_ms": until_ms, "what": what})
    await client.lpush(keys.ORDERS, text)
    heard = False
    wait_until_s = monotonic_s() + TAKEN_WITHIN_S
    while True:
        left_s = wait_until_s - monotonic_s()
        item = await client.blpop([answers], max(0.05, min(BLOCK_S, left_s)))
        if item is None:
            if monotonic_s() < wait_until_s:
                continue
            what_now = (
                "it stopped answering; see `novawf status`" if heard else "no supervisor took it"
            )
            raise NoAnswer(f"{op}: {what_now}")
        heard, wait_until_s = True, monotonic_s() + SILENT_S
        answer: dict[str, Any] = json.loads(item[1])
        yield answer
        if answer.get("done"):
            return


class OrderDesk:
    """The supervisor's end: takes orders one after the other, and answers them."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self.redis: Any = redis
        self.clock = clock

    async def take(self) -> Order | None:
        """The next order that still stands; None after a while. Raises redis' errors.

        The client must be made for a block of `BLOCK_S`.
        """
        item = await self.redis.brpop([keys.ORDERS], BLOCK_S)
        if item is None:
            return None
        try:
            fields = json.loads(item[1])
            order = Order(
                id=str(fields["id"]),
                op=str(fields["op"]),
                by=str(fields["by"]),
                until_ms=int(fields["until_ms"]),
                what=dict(fields["what"]),
            )
        except (ValueError, KeyError, TypeError):
            return None  # written by nobody of ours
        return order if self.clock.now_ms() <= order.until_ms else None

    async def answer(self, order: Order, *, done: bool = False, **fields: Any) -> None:
        """Tell the giver; `error` is one line for people."""
        key = keys.answers(order.id)
        await self.redis.rpush(key, json.dumps({**fields, "done": done}))
        await self.redis.expire(key, KEPT_S)
