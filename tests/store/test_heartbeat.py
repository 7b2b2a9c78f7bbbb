"""An idle Nova's heartbeat is a pulse: small, and as good as a whole one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import World

from novawf.errors import Fenced
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.workflow import heartbeat
from novawf.workflow.identity import NovaBeat
from novawf.workflow.nova import NovaRuntime
from novawf.workflow.states import State


@pytest.fixture
async def world(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[World]:
    world = World(valkey_server, tmp_path)
    await world.open_gate()
    yield world
    await world.close()


@pytest.fixture
async def torch(world: World) -> NovaRuntime:
    """An idle Nova that has said who it is."""
    torch = await world.nova()
    await torch.heartbeat.beat()
    return torch


async def shown(world: World) -> NovaBeat:
    return NovaBeat.from_json(await world.redis.hget(keys.NOVAS, "torch"))


async def sent(world: World, torch: NovaRuntime) -> int:
    """Bytes of one heartbeat, by the server's count."""

    async def count() -> int:
        clients = await world.redis.client_list()
        return sum(int(c["tot-net-in"]) for c in clients if c["name"] == "nova-torch")

    before = await count()
    await torch.heartbeat.beat()
    return await count() - before


async def test_a_pulse_moves_cycle_and_times_and_nothing_else(
    world: World, torch: NovaRuntime
) -> None:
    before = await shown(world)
    await torch.heartbeat.beat()  # the store has the script from here on
    torch.data.total_cycles_completed = 77
    began_ms = torch.clock.now_ms()
    assert await sent(world, torch) < 350
    after = await shown(world)
    assert after.cycles == 77
    assert after.seen_ms == after.progress_ms >= began_ms
    assert (after.pid, after.epoch, after.state, after.phase, after.since_ms) == (
        before.pid, before.epoch, before.state, before.phase, before.since_ms,
    )  # fmt: skip
    assert await world.redis.pttl(keys.presence("torch")) > 0


async def test_what_is_new_is_said_at_once(world: World, torch: NovaRuntime) -> None:
    torch.data.current_state = State.SAFETY_PAUSE
    await torch.heartbeat.beat()
    assert (await shown(world)).state == "safety_pause"
    assert await world.redis.get(keys.presence("torch")) == "PAUSED"


async def test_all_is_said_again_where_nothing_is_known(world: World, torch: NovaRuntime) -> None:
    before = await shown(world)
    await world.redis.delete(keys.NOVAS)
    await torch.heartbeat.beat()
    assert (await shown(world)).since_ms == before.since_ms
    await world.redis.hset(keys.NOVAS, "torch", "rubbish")
    await torch.heartbeat.beat()
    assert (await shown(world)).since_ms == before.since_ms


async def test_all_is_said_now_and_then_so_that_the_state_is_kept(
    world: World, torch: NovaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def kept() -> str:
        return str(await world.redis.hget(keys.workflow_state("torch"), "total_cycles_completed"))

    torch.data.total_cycles_completed = 77
    await torch.heartbeat.beat()
    assert await kept() == "0"
    monkeypatch.setattr(heartbeat, "WHOLE_EVERY_MS", 0)
    await torch.heartbeat.beat()
    assert await kept() == "77"


async def test_a_pulse_of_an_old_life_is_fenced(world: World, torch: NovaRuntime) -> None:
    await world.nova("torch")
    with pytest.raises(Fenced):
        await torch.heartbeat.beat()


async def test_a_pulse_hears_what_a_whole_beat_hears(world: World, torch: NovaRuntime) -> None:
    async def both() -> None:
        pulse = await torch.claimant.pulse(1, 2, "ACTIVE")
        assert pulse == await torch.claimant.beat("{}", "ACTIVE", None, [])
        await world.redis.hset(keys.NOVAS, "torch", before)
        heard.append(pulse)

    heard: list[Any] = []
    before = await world.redis.hget(keys.NOVAS, "torch")
    await both()
    await world.open_gate(good=False, reason="too hot")
    await both()
    await world.gate.pause("torch")
    await both()
    await world.gate.stop("drill", "test")
    await both()
    await world.submit()
    await both()
    assert [beat.against for beat in heard] == [None] + ["too hot"] * 4
    assert [beat.paused for beat in heard] == [False] * 2 + [True] * 3
    assert [beat.stopped for beat in heard] == [False] * 3 + [True] * 2
    assert [beat.work for beat in heard] == [False] * 4 + [True]
