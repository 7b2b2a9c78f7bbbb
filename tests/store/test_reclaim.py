"""The supervisor's rounds on a real store and a real keeper server, without Ray."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import World
from process_world import keeper_server
from waiting import until

from actors.reclaim import Reclaim
from novawf.clock import monotonic_s
from novawf.processes.keeper import KeeperClient
from novawf.store.connect import StoreAddress
from novawf.tasks.claims import Claim, Claimant, take_identity


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path, lease_s=0.5)
    await world.open_gate()
    yield world
    await world.close()


@pytest.fixture
async def reclaim(world: World, tmp_path: Path) -> AsyncIterator[Reclaim]:
    with keeper_server(tmp_path / "run") as server:
        keeper = KeeperClient(server.socket_path)
        yield Reclaim(world.redis, world.queue, keeper, 3, lambda event, **fields: None)


async def in_hand(world: World) -> tuple[Claimant, Claim]:
    await world.submit(retries=0)
    epoch = await take_identity(world.redis, "torch")
    owner = Claimant(world.redis, world.clock, world.settings, "torch", epoch)
    claim = await owner.claim()
    assert isinstance(claim, Claim)
    return owner, claim


async def freed(world: World, reclaim: Reclaim, claim: Claim) -> bool:
    await reclaim.round()
    return await world.status(claim.task_id) == ("blocked", "failed")


async def test_a_silent_owner_loses_its_task(world: World, reclaim: Reclaim) -> None:
    """Once its lease has run out, and what it runs is known to have ended."""
    _, claim = await in_hand(world)
    await until(lambda: freed(world, reclaim, claim), what="the end of the lease")


async def test_a_machine_that_slept_gives_owners_time_to_renew(
    world: World, reclaim: Reclaim
) -> None:
    """Fleet time went on by an hour in which nobody ran: all leases have expired, none is over."""
    owner, claim = await in_hand(world)
    await reclaim.round()
    await until(lambda: reclaim_is_armed(world, reclaim), what="a lease since the start")
    await owner.beat("{}", "ACTIVE", claim, [])
    world.clock.offset_ms += 3_600_000
    assert not await freed(world, reclaim, claim)
    assert not reclaim._expiring
    beat = await owner.beat("{}", "ACTIVE", claim, [])
    assert beat.lease_held
    assert not await freed(world, reclaim, claim)
    await until(lambda: freed(world, reclaim, claim), what="the end of the lease, awake")


def reclaim_is_armed(world: World, reclaim: Reclaim) -> bool:
    """Whether its own start is longer ago than a lease."""
    return monotonic_s() - reclaim._store_back_s > world.settings.lease_s
