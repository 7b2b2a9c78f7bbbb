"""Finished tasks leave the store after their retention, whole, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from losing_proxy import LosingProxy
from redis.exceptions import ConnectionError as RedisConnectionError

from novawf.clock import ManualClock
from novawf.errors import NotFound, Refused
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks import archive_file
from novawf.tasks.archive import PAGE, Archive
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

if TYPE_CHECKING:
    from redis.asyncio import Redis

HOUR_MS = 3_600_000
SETTINGS = TaskSettings(retention_h=1, lease_s=1e9)
COMPLETED = Ending("completed", "succeeded")
FAILED = Ending("blocked", "failed")


class World:
    """A queue, a Nova that does what is in it, and an archive."""

    def __init__(self, redis: Any, clock: ManualClock, directory: Path) -> None:
        self.redis = redis
        self.clock = clock
        self.queue = TaskQueue(redis, clock, SETTINGS)
        self.tracker = TaskTracker(redis, clock)
        self.logs = directory / "logs"
        self.archive = Archive(redis, clock, SETTINGS, directory / "archive", self.logs)
        self.requests = 0

    async def begin(self) -> World:
        until_ms = self.clock.now_ms() + 10**12
        await Gate(self.redis, self.clock).refresh(safe("drill", until_ms))
        epoch = await take_identity(self.redis, "torch")
        self.nova = Claimant(self.redis, self.clock, SETTINGS, "torch", epoch)
        return self

    async def submit(self, request: str = "", **fields: Any) -> str:
        self.requests += 1
        spec = TaskSpec.parse({"title": "x", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request or f"r{self.requests}")).task_id

    async def do(self, ending: Ending = COMPLETED, result: str = "") -> str:
        """Do the next task."""
        claim = await self.nova.claim()
        assert isinstance(claim, Claim)
        await self.nova.finish(claim, ending, result=result, detail="said", claim_next=False)
        await self.queue.sweep_cascade()
        return claim.task_id

    async def here(self, *task_ids: str) -> list[bool]:
        return [bool(await self.redis.hexists(keys.TASK_STATE, one)) for one in task_ids]


@pytest.fixture
async def world(redis: Redis, clock: ManualClock, tmp_path: Path) -> World:
    return await World(redis, clock, tmp_path).begin()


async def test_a_finished_task_leaves_after_its_retention_and_is_found_as_it_was(
    world: World,
) -> None:
    """Not a moment before; then with specification, result and history, as it was shown."""
    task_id = await world.submit(description="why", env={"A": "1"}, metadata={"k": [1, None]})
    await world.do(result='{"results": {"n": 1}, "exit_code": 0, "nova": "torch"}')
    shown = await world.tracker.task(task_id)
    world.clock.advance(HOUR_MS - 1)
    assert await world.archive.sweep() == (0, 0, 0, True)
    world.clock.advance(1)
    swept = await world.archive.sweep()
    assert (swept.tasks, swept.done) == (1, True)
    with pytest.raises(NotFound):
        await world.tracker.task(task_id)
    found = world.archive.find(task_id)
    assert found is not None
    assert found.pop("spec")["env"] == {"A": "1"}
    assert found.pop("archived_at") == "2023-11-14T23:13:20.000Z"
    assert found == shown
    assert world.archive.find("TORCH-1700000000-ffffff") is None
    assert world.archive.find("no task at all") is None


async def test_nothing_of_it_stays_in_the_store(redis: Redis, world: World) -> None:
    """Not in any hash or set: a month of work leaves the store as large as it was."""
    before = await contents(redis)
    first = await world.submit("q1", dedupe="d1", deadline="2023-11-14T22:20:00Z")
    await world.submit("q2", after=[first], dedupe="d2")
    await world.do()
    await world.do(FAILED)
    third = await world.submit("q3", after=[first])
    await world.submit("q4", after=[third], at="2030-01-01T00:00:00Z")
    await world.do(FAILED)
    world.clock.advance(HOUR_MS)
    assert (await world.archive.sweep()).tasks == 4
    assert await contents(redis) == before
    counts: Any = await redis.hgetall(keys.TASK_COUNTS)
    assert (counts["archived:completed"], counts["archived:blocked"]) == ("1", "3")
    assert set((await world.tracker.counts()).values()) == {0}


async def contents(redis: Any) -> dict[str, Any]:
    """What the store holds by task, streams and counters aside."""
    hashes = (
        keys.TASK_SPEC, keys.TASK_STATE, keys.TASK_RESULT, keys.TASK_REQUESTS, keys.WAITING,
        keys.DEPENDENTS,
    )  # fmt: skip
    sets = (
        keys.TASK_ORDER, keys.READY, keys.PINNED, keys.DELAYED, keys.DEADLINES, keys.LEASES,
    )  # fmt: skip
    found = {name: await redis.hgetall(name) for name in hashes}
    found |= {name: await redis.zrange(name, 0, -1) for name in sets}
    return found | {keys.CASCADE: await redis.smembers(keys.CASCADE)}


async def test_a_request_and_a_dedupe_key_are_free_again(world: World) -> None:
    """They hold for as long as their task is in the store."""
    first = await world.submit("q", dedupe="d")
    await world.do()
    assert await world.submit("q") == first
    assert await world.submit("other", dedupe="d") == first
    world.clock.advance(HOUR_MS)
    await world.archive.sweep()
    again = await world.submit("q", dedupe="d")
    assert again != first
    assert await world.submit("q", dedupe="d") == again


async def test_what_has_not_ended_stays(world: World) -> None:
    """Pending, in hand, awaiting approval, however old."""
    waits = await world.submit(approval=True)
    held = await world.submit()
    assert isinstance(await world.nova.claim(), Claim)
    pending = await world.submit(nova="nobody")
    world.clock.advance(1000 * HOUR_MS)
    assert (await world.archive.sweep()).tasks == 0
    assert await world.here(waits, held, pending) == [True, True, True]


async def test_what_an_unfinished_task_comes_after_stays(world: World) -> None:
    """A retry has to see that what it comes after failed: else it would run without that."""
    cause = await world.submit()
    follower = await world.submit(after=[cause])
    await world.do(FAILED)
    assert (await world.tracker.task(follower))["outcome"] == "dependency"
    world.clock.advance(HOUR_MS - 1)
    late = await world.submit(after=[cause])
    await world.queue.sweep_cascade()
    world.clock.advance(1)
    assert (await world.archive.sweep()).tasks == 1
    assert await world.here(cause, follower, late) == [True, False, True]
    with pytest.raises(Refused, match="blocked"):
        await world.queue.retry(late)
    world.clock.advance(HOUR_MS)
    assert (await world.archive.sweep()).tasks == 2
    assert await world.here(cause, late) == [False, False]


async def test_a_long_chain_leaves_in_one_sweep(world: World) -> None:
    """Its end goes first, so each link finds nobody behind it."""
    chain = [await world.submit()]
    for _ in range(PAGE + 10):
        chain.append(await world.submit(after=[chain[-1]]))
    await world.do(FAILED)
    world.clock.advance(HOUR_MS)
    assert (await world.archive.sweep(limit_s=60)).tasks == PAGE + 11
    assert not any(await world.here(*chain))
    assert world.archive.find(chain[0]) is not None


async def test_a_completed_task_leaves_from_under_those_that_came_after_it(world: World) -> None:
    """It holds up nobody any more; a follower that failed can be retried without it."""
    first = await world.submit()
    follower = await world.submit(after=[first], retries=0)
    await world.do()
    world.clock.advance(HOUR_MS)
    await world.archive.sweep()
    assert await world.here(first, follower) == [False, True]
    assert await world.do(FAILED) == follower
    await world.queue.retry(follower)
    assert await world.do() == follower


@pytest.mark.parametrize("change", ["retry", "follow"])
async def test_a_task_that_changes_while_it_is_written_stays(
    world: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The script that removes looks again; the line in the archive is then an old one."""
    task_id = await world.submit()
    await world.do(FAILED)
    world.clock.advance(HOUR_MS)
    write = Archive._write

    def and_then(archive: Archive, rows: Any) -> Any:
        done = write(archive, rows)
        call = world.queue.retry(task_id) if change == "retry" else world.submit(after=[task_id])
        asyncio.run_coroutine_threadsafe(call, loop).result(10)
        return done

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Archive, "_write", and_then)
    assert (await world.archive.sweep()).tasks == 0
    assert await world.here(task_id) == [True]
    if change == "retry":
        monkeypatch.undo()
        assert await world.do() == task_id
        world.clock.advance(HOUR_MS)
        assert (await world.archive.sweep()).tasks == 1
        assert (world.archive.find(task_id) or {})["status"] == "completed"
        assert len(list(world.archive.tasks())) == 2


async def test_a_crash_between_writing_and_removing_costs_a_second_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is removed that is not on disk; what is there twice is found once."""
    task_id = await world.submit()
    await world.do()
    world.clock.advance(HOUR_MS)

    async def die(archive: Archive, rows: Any) -> int:
        raise RedisConnectionError("killed")

    monkeypatch.setattr(Archive, "_forget", die)
    with pytest.raises(RedisConnectionError):
        await world.archive.sweep()
    monkeypatch.undo()
    assert await world.here(task_id) == [True]
    assert (await world.archive.sweep()).tasks == 1
    assert [line["task_id"] for line in world.archive.tasks()] == [task_id, task_id]
    assert world.archive.find(task_id) is not None


async def test_a_lost_reply_is_made_good(
    redis: Redis, world: World, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """What the lost call removed is gone, and counted once."""
    proxy = LosingProxy(valkey_server, tmp_path)
    await proxy.start()
    unlucky = connect(proxy.address, name="unlucky")
    archive = Archive(unlucky, world.clock, SETTINGS, tmp_path / "archive")
    try:
        for number in range(3):
            task_id = await world.submit()
            await world.do()
            world.clock.advance(HOUR_MS)
            if number == 0:
                await archive.sweep()  # the store knows the script by now
                continue
            proxy.lose("EVALSHA")
            with pytest.raises(RedisConnectionError):
                await archive.sweep()
            assert await world.here(task_id) == [False]
            assert (await archive.sweep()).tasks == 0
        assert await redis.hget(keys.TASK_COUNTS, "archived:completed") == "3"  # type: ignore[misc]
        assert (await world.tracker.counts())["completed"] == 0
    finally:
        await unlucky.aclose()
        await proxy.close()


async def test_a_sweep_stops_at_its_limit_and_goes_on(world: World) -> None:
    """It never holds up the store or its caller for long."""
    for _ in range(PAGE + 1):
        await world.submit()
        await world.do()
    world.clock.advance(HOUR_MS)
    first = await world.archive.sweep(limit_s=0)
    assert (first.tasks, first.done) == (PAGE, False)
    last = await world.archive.sweep(limit_s=0)
    assert (last.tasks, last.done) == (1, True)


async def test_large_tasks_go_in_small_batches(world: World, monkeypatch: Any) -> None:
    """A megabyte a task must not become hundreds of them in memory."""
    monkeypatch.setattr("novawf.tasks.archive.PAGE_BYTES", 1000)
    for size in (600, 600, 5000, 10, 10):
        await world.submit(description="x" * size)
        await world.do()
    world.clock.advance(HOUR_MS)
    written = []
    keep = archive_file.append
    monkeypatch.setattr(
        archive_file, "append", lambda *args: written.append(len(args[3])) or keep(*args)
    )
    assert (await world.archive.sweep()).tasks == 5
    assert written == [2, 1, 1, 1]


async def test_only_one_sweeps(world: World) -> None:
    """Whoever comes second leaves it to the first."""
    await world.submit()
    await world.do()
    world.clock.advance(HOUR_MS)
    with archive_file.writing(world.archive.directory, "tasks") as mine:
        assert mine
        assert await world.archive.sweep() == (0, 0, 0, False)
    assert (await world.archive.sweep()).tasks == 1


async def test_a_task_that_cannot_be_read_holds_up_no_other(redis: Redis, world: World) -> None:
    """What is broken stays where it is, for people to look at."""
    broken, state, fine = [await world.submit() for _ in range(3)]
    for _ in range(3):
        await world.do()
    await redis.hset(keys.TASK_SPEC, broken, "{")  # type: ignore[misc]
    await redis.hset(keys.TASK_STATE, state, "nonsense")  # type: ignore[misc]
    world.clock.advance(HOUR_MS)
    assert (await world.archive.sweep()).tasks == 1
    assert await world.here(broken, state, fine) == [True, True, False]


async def test_a_disk_that_is_full_removes_nothing(world: World) -> None:
    """A task is in the store until it is on disk."""
    task_id = await world.submit()
    await world.do()
    world.clock.advance(HOUR_MS)
    world.archive.directory.write_text("a file where the directory should be")
    with pytest.raises(Refused, match="cannot be used"):
        await world.archive.sweep()
    assert await world.here(task_id) == [True]


async def test_logs_go_with_their_tasks(world: World) -> None:
    """Old logs whose task has left; not young ones, not those of tasks still here."""
    gone = await world.submit()
    await world.do()
    world.clock.advance(HOUR_MS)
    stays = await world.submit()
    world.logs.mkdir()
    old = [f"{gone}.1.log", f"{gone}.2.log.part.4096", f"{stays}.1.log", "notes.txt"]
    for name in [*old, f"{gone}.3.log"]:
        (world.logs / name).write_text("output")
    age_s = world.clock.wall_s() - 3601
    for name in old:
        os.utime(world.logs / name, (age_s, age_s))
    assert await world.archive.sweep() == (1, world.archive.files()[0].bytes, 2, True)
    left = {path.name for path in world.logs.iterdir()}
    assert left == {f"{stays}.1.log", "notes.txt", f"{gone}.3.log"}


async def test_the_store_does_not_grow_by_what_is_done(redis: Redis, world: World) -> None:
    """Twenty thousand finished tasks later it takes as much as before, and each is found."""
    number = 20_000
    model = await world.submit()
    await world.do()
    spec, state = [await redis.hget(name, model) for name in (keys.TASK_SPEC, keys.TASK_STATE)]  # type: ignore[misc]
    world.clock.advance(HOUR_MS)
    await world.archive.sweep()
    before = await used(redis)
    task_ids = [f"FLEET-1700000000-{count:06x}" for count in range(16, number + 16)]
    now_ms = world.clock.now_ms() - HOUR_MS
    for start in range(0, number, 1000):
        some = task_ids[start : start + 1000]
        async with redis.pipeline(transaction=False) as pipe:
            pipe.hset(keys.TASK_SPEC, mapping=dict.fromkeys(some, spec))
            pipe.hset(keys.TASK_STATE, mapping=dict.fromkeys(some, state))
            pipe.zadd(keys.TASK_ORDER, dict.fromkeys(some, now_ms))
            pipe.hincrby(keys.TASK_COUNTS, "completed", len(some))
            await pipe.execute()
    full = await used(redis)
    began_s = time.perf_counter()
    swept = await world.archive.sweep(limit_s=60)
    took_s = time.perf_counter() - began_s
    assert (swept.tasks, swept.done) == (number, True)
    after = await used(redis)
    began_s = time.perf_counter()
    assert all(world.archive.find(task_id) for task_id in task_ids[::200])
    find_ms = (time.perf_counter() - began_s) * 1000 / 100
    print(
        f"{(full - before) / number:.0f} B a task in the store, {swept.bytes / number:.0f} B in "
        f"the archive, {number / took_s:.0f} tasks/s, {find_ms:.1f} ms to find one, "
        f"store {before:,} -> {full:,} -> {after:,} B"
    )
    assert after - before < 0.02 * (full - before)


async def used(redis: Any) -> int:
    """Bytes that the store's data takes."""
    return int((await redis.info("memory"))["used_memory_dataset"])
