"""The supervisor's records reach the store in the end: a real store, killed and rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.exceptions import RedisError
from valkey_process import LOSS_FREE, ValkeyProcess

from actors.directory import Directory
from novawf.clock import ManualClock
from novawf.settings import FleetSettings, Settings
from novawf.store import keys
from novawf.store.connect import connect
from novawf.store.ownership import Owner, Ownership
from novawf.workflow.identity import ChildRecord

if TYPE_CHECKING:
    from redis.asyncio import Redis


def record(state: str, pid: int | None = None) -> ChildRecord:
    return ChildRecord("nova", pid, pid is not None, 0, state, "2026-01-01T00:00:00.000Z")


def directory_of(ownership: Ownership) -> Directory:
    unused = cast("Any", None)
    directory = Directory(
        Settings(fleet=FleetSettings(novas=("torch",), home=Path())), unused, unused, "first"
    )
    directory.ownership = ownership
    return directory


@pytest.fixture
async def owner(redis: Redis, clock: ManualClock) -> Ownership:
    ownership = Ownership(redis, clock, Owner("first", 1, 1, "boot", "machine", "/home/first"))
    await ownership.take(lambda _: False)
    return ownership


async def test_what_a_killed_store_missed_is_written_once_it_is_back(
    valkey_binary: Path, tmp_path: Path, clock: ManualClock
) -> None:
    server = ValkeyProcess(valkey_binary, tmp_path, *LOSS_FREE)
    server.start()
    async with connect(server.address) as redis:
        ownership = Ownership(redis, clock, Owner("first", 1, 1, "boot", "machine", "/home/first"))
        await ownership.take(lambda _: False)
        directory = directory_of(ownership)
        assert await directory.child("torch", record("starting"))
        server.kill()
        assert await directory.child("torch", record("running", 4711))
        server.start()
        await ownership.take(lambda _: False)
        assert await directory.say_again()
        assert await redis.hget(keys.CHILDREN, "torch") == record("running", 4711).to_json()
    server.kill()


async def test_what_a_store_forgot_is_written_when_it_is_in_doubt(
    redis: Redis, owner: Ownership
) -> None:
    directory = directory_of(owner)
    await directory.child("torch", record("running", 1))
    await redis.delete(keys.CHILDREN)
    assert await directory.say_again()
    assert not await redis.exists(keys.CHILDREN)
    directory.doubt()
    assert await directory.say_again()
    assert await redis.hkeys(keys.CHILDREN) == ["torch"]


async def test_who_left_the_fleet_is_not_written_again(redis: Redis, owner: Ownership) -> None:
    directory = directory_of(owner)
    for name in ("torch", "echo"):
        await directory.child(name, record("running", 1))
    await directory.forget_children(["torch"])
    directory.doubt()
    assert await directory.say_again()
    assert await redis.hkeys(keys.CHILDREN) == ["echo"]


async def test_who_left_while_the_store_was_away_has_no_record_once_it_is_back(
    valkey_binary: Path, tmp_path: Path, clock: ManualClock
) -> None:
    server = ValkeyProcess(valkey_binary, tmp_path, *LOSS_FREE)
    server.start()
    async with connect(server.address) as redis:
        ownership = Ownership(redis, clock, Owner("first", 1, 1, "boot", "machine", "/home/first"))
        await ownership.take(lambda _: False)
        directory = directory_of(ownership)
        await directory.child("torch", record("running", 1))
        server.kill()
        with pytest.raises((RedisError, OSError)):
            await directory.forget_children(["torch"])
        server.start()
        assert await directory.say_again()
        assert not await redis.exists(keys.CHILDREN)
        await directory.child("torch", record("running", 2))  # it joins again
        directory.doubt()
        assert await directory.say_again()
        assert await redis.hget(keys.CHILDREN, "torch") == record("running", 2).to_json()
    server.kill()


async def test_a_store_that_is_another_s_is_told_nothing(redis: Redis, owner: Ownership) -> None:
    directory = directory_of(owner)
    await directory.child("torch", record("running", 1))
    await redis.hset(keys.FLEET_OWNER, "run", "second")
    await redis.delete(keys.CHILDREN)
    directory.doubt()
    assert not await directory.say_again()
    assert not await redis.exists(keys.CHILDREN)
