"""Orders to a supervisor that are no orders at all are refused before anybody is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from novawf.clock import ManualClock
from novawf.errors import UserError
from novawf.store.connect import StoreAddress
from novawf.supervision.crew_orders import Crew


@pytest.mark.parametrize(
    "order",
    [
        lambda crew: crew.add(["To rch"]),
        lambda crew: crew.scale(["fleet"]),
        lambda crew: crew.scale([]),
        lambda crew: crew.scale(0),
        lambda crew: crew.scale(501),
    ],
    ids=["a bad name", "a reserved name", "nobody", "none", "too many"],
)
async def test_a_slip_is_told_at_once_and_nothing_is_sent(
    redis: Any,
    valkey_server: StoreAddress,
    clock: ManualClock,
    order: Callable[[Crew], Awaitable[Any]],
) -> None:
    with pytest.raises(UserError):
        await order(Crew(valkey_server, clock))
    assert await redis.dbsize() == 0
