"""The Python interface on a real store: what is asked of a fleet happens there, once."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from novawf import fleet_view
from novawf.client import CONNECTIONS, Fleet
from novawf.clock import ManualClock, SystemClock
from novawf.errors import (
    CorruptState,
    FleetNotRunning,
    InvalidTask,
    NotFound,
    StoreUnreachable,
)
from novawf.processes.finding import find_fleet, supervisor_holds
from novawf.processes.home import HomeLock, write_fleet_file
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.workflow.identity import ChildRecord, NovaBeat

SINCE = "2026-11-21T08:00:00.000Z"
WORK = {"title": "work", "argv": ["true"]}


@pytest.fixture
async def fleet(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> Any:
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        yield fleet


async def run_next(redis: Any, nova: str = "torch", verdict: Any = "completed") -> str:
    """Be a Nova for one task."""
    clock = SystemClock()
    await redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": clock.now_ms() + 60_000})
    epoch = await take_identity(redis, nova)
    claimant = Claimant(redis, clock, TaskSettings(), nova, epoch)
    claim = await claimant.claim([])
    assert isinstance(claim, Claim), claim
    ending = Ending(verdict, "succeeded" if verdict == "completed" else "failed")
    await claimant.finish(claim, ending, result='{"exit_code": 0}', detail="")
    return claim.task_id


async def test_a_repeated_submission_finds_the_first_task(fleet: Fleet) -> None:
    first = await fleet.submit(WORK, request_id="r1")
    assert await fleet.submit(WORK, request_id="r1") == first
    assert [row["task_id"] for row in await fleet.tasks()] == [first]


async def test_many_are_submitted_in_their_order(fleet: Fleet) -> None:
    task_ids = await fleet.submit_many([{**WORK, "title": f"t{i}"} for i in range(20)])
    assert [row["task_id"] for row in await fleet.tasks()] == task_ids


async def test_any_number_of_calls_may_be_made_at_a_time(fleet: Fleet, redis: Any) -> None:
    """They share a bounded number of connections and wait for each other."""
    ids = await asyncio.gather(*(fleet.submit(WORK) for _ in range(1_000)))
    assert len(set(ids)) == 1_000
    assert len(await redis.client_list()) <= CONNECTIONS + 5


async def test_one_bad_task_among_many_lets_none_through(fleet: Fleet) -> None:
    with pytest.raises(InvalidTask, match="argv"):
        await fleet.submit_many([WORK, {"title": "x", "argv": []}])
    assert await fleet.tasks() == []


async def test_retries_are_those_the_running_fleet_has_set(fleet: Fleet, redis: Any) -> None:
    await redis.hset(keys.FLEET, "document", json.dumps({"tasks": {"retries": 0}}))
    view = await fleet.task(await fleet.submit(WORK))
    assert view["attempts_allowed"] == 1


async def test_wait_returns_the_ended_task(fleet: Fleet, redis: Any) -> None:
    task_id = await fleet.submit(WORK)
    view, ran = await asyncio.gather(fleet.wait(task_id, timeout_s=10), run_next(redis))
    assert ran == task_id
    assert (view["status"], view["exit_code"]) == ("completed", 0)


async def test_wait_ends_for_a_blocked_task_too(fleet: Fleet, redis: Any) -> None:
    task_id = await fleet.submit(WORK)
    await run_next(redis, verdict="blocked")
    assert (await fleet.wait(task_id, timeout_s=10))["status"] == "blocked"


async def test_wait_gives_up_at_its_timeout_and_names_the_state(fleet: Fleet) -> None:
    task_id = await fleet.submit(WORK)
    with pytest.raises(TimeoutError, match=r"still pending after 0\.02 s"):
        await fleet.wait(task_id, timeout_s=0.02)


@pytest.mark.parametrize("steps", range(1, 25))
async def test_wait_ends_when_it_is_cancelled_at_whatever_step(fleet: Fleet, steps: int) -> None:
    waiting = asyncio.create_task(fleet.wait(await fleet.submit(WORK)))
    for _ in range(steps):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert done
    assert waiting.cancelled()


async def test_wait_ends_when_it_was_cancelled_just_before_it_began(fleet: Fleet) -> None:
    task_id = await fleet.submit(WORK)

    async def wait_when_cancelled() -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()  # as a signal handler does while the task runs
        await fleet.wait(task_id)

    waiting = asyncio.create_task(wait_when_cancelled())
    done, _ = await asyncio.wait({waiting}, timeout=2)
    assert done
    assert waiting.cancelled()


async def test_wait_for_no_task_says_so(fleet: Fleet) -> None:
    with pytest.raises(NotFound):
        await fleet.wait("TORCH-1-000001")


async def test_known_tells_tasks_from_other_names(fleet: Fleet) -> None:
    task_id = await fleet.submit(WORK)
    assert await fleet.known([task_id, "TORCH-1-000001"]) == {task_id}
    assert await fleet.known([]) == set()


async def test_only_known_novas_are_paused_once_some_are_known(fleet: Fleet, redis: Any) -> None:
    assert await fleet.pause("torch") is True
    await redis.hset(keys.NOVAS, "echo", "{}")
    with pytest.raises(NotFound, match="known are echo"):
        await fleet.pause("ehco")
    with pytest.raises(NotFound):
        await fleet.resume("ehco")
    assert await fleet.resume("torch") is True


async def test_a_stop_is_shown_until_it_is_cleared(fleet: Fleet) -> None:
    at_s = await fleet.stop_all("drill", by="tester")
    assert abs(at_s - SystemClock().wall_s()) < 5
    stop = (await fleet.status())["fleet"]["stop"]
    assert (stop["reason"], stop["by"]) == ("drill", "tester")
    assert await fleet.clear_stop() is True
    assert (await fleet.status())["fleet"]["stop"] is None


async def test_an_empty_store_has_a_status(fleet: Fleet) -> None:
    status = await fleet.status()
    assert status["fleet"]["state"] == "unknown"
    assert (status["novas"], status["actors"]) == ([], [])
    assert status["tasks"] == {"pending": 0, "in_progress": 0, "completed": 0, "blocked": 0}
    assert status["queue_depth"] == 0
    assert status["limits"]["minute_left"] == 30


async def test_status_has_the_shape_of_the_public_surface(
    fleet: Fleet, redis: Any, clock: ManualClock
) -> None:
    store = {"backend": "valkey", "persistence": "append-only log", "loss_window_s": 1.0}
    document = {
        "state": "running", "started_at": SINCE, "run_id": "r", "pid": 5, "store": store,
        "limits": {"requests_per_minute": 7},
    }  # fmt: skip
    await redis.hset(keys.FLEET, "document", json.dumps(document))
    now = clock.now_ms()
    beat = NovaBeat(12, 1, "work_discovery", "work_phase_1", "", 3, now, now, now)
    torch = ChildRecord("nova", 12, True, 1, "running", SINCE)
    helix = ChildRecord("nova", None, False, 5, "quarantined", SINCE, "killed 5 times")
    limiter = ChildRecord("actor", 13, True, 0, "running", SINCE)
    children = {"torch": torch, "helix": helix, "limiter": limiter}
    await redis.hset(
        keys.CHILDREN, mapping={name: child.to_json() for name, child in children.items()}
    )
    await redis.hset(keys.NOVAS, "torch", beat.to_json())
    await fleet.submit(WORK)
    status = await fleet_view.status(redis, clock)

    assert {"state", "started_at", "store", "stop"} <= set(status["fleet"])
    assert status["fleet"]["store"] == store
    assert [(nova["id"], nova["state"]) for nova in status["novas"]] == [
        ("helix", "quarantined"), ("torch", "work_discovery"),
    ]  # fmt: skip
    for nova in status["novas"]:
        assert {
            "id", "state", "phase", "pid", "alive", "listening", "progressing", "task", "restarts",
            "cycles", "since",
        } <= set(nova)  # fmt: skip
    assert [(actor["name"], actor["alive"]) for actor in status["actors"]] == [("limiter", True)]
    assert status["tasks"]["pending"] == 1
    assert status["limits"]["minute_left"] == 7


async def test_the_queue_is_as_deep_as_what_may_start_now(fleet: Fleet) -> None:
    """Pinned tasks count; one in hand, and one that waits for its time or another task, do not."""
    first = await fleet.submit(WORK)
    await fleet.submit({**WORK, "nova": "helix"})
    await fleet.submit({**WORK, "at": "2999-01-01T00:00:00Z"})
    await fleet.submit({**WORK, "after": [first]})
    status = await fleet.status()
    assert (status["queue_depth"], status["tasks"]["pending"]) == (2, 4)
    assert await run_next(fleet.redis) == first
    status = await fleet.status()  # whoever ends a task takes the next: the first's dependent
    assert (status["queue_depth"], status["tasks"]["in_progress"]) == (1, 1)


async def test_status_takes_two_round_trips(fleet: Fleet, redis: Any) -> None:
    await fleet.status()  # loads the script
    before = int((await redis.info("stats"))["total_reads_processed"])
    await fleet.status()
    after = int((await redis.info("stats"))["total_reads_processed"])
    assert after - before - 1 <= 2


async def test_a_torn_record_is_called_corrupt(fleet: Fleet, redis: Any) -> None:
    await redis.hset(keys.FLEET, "document", "{")
    with pytest.raises(CorruptState, match=keys.FLEET):
        await fleet.status()


async def test_connect_can_be_awaited_too(valkey_server: StoreAddress, redis: Any) -> None:
    fleet = await Fleet.connect(store=valkey_server.url())
    assert await fleet.tasks() == []
    await fleet.close()


async def test_a_store_that_does_not_answer_is_out_of_reach(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable):
        await Fleet.connect(store=StoreAddress.unix(tmp_path / "nothing.sock"))


# -- finding a fleet by its home ------------------------------------------------------------------


def running_at(home: Path, address: StoreAddress) -> HomeLock:
    """What a supervisor leaves in its home while it runs; this process plays it."""
    lock = HomeLock(home)
    lock.acquire()
    write_fleet_file(
        home,
        {
            "pid": os.getpid(), "run_id": "r", "store_url": address.redacted(),
            "password_file": None, "started_at": SINCE,
        },
    )  # fmt: skip
    return lock


async def test_a_running_fleet_is_found_by_its_home(
    tmp_path: Path, valkey_server: StoreAddress, redis: Any
) -> None:
    lock = running_at(tmp_path, valkey_server)
    async with Fleet.connect(home=tmp_path) as fleet:
        assert fleet.address == valkey_server
    lock.release()


async def test_a_home_whose_supervisor_died_has_no_fleet(
    tmp_path: Path, valkey_server: StoreAddress
) -> None:
    running_at(tmp_path, valkey_server).release()
    with pytest.raises(FleetNotRunning, match="novawf up"):
        await Fleet.connect(home=tmp_path)


async def test_a_home_without_a_fleet_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(FleetNotRunning, match="novawf up"):
        await Fleet.connect(home=tmp_path / "nothing")


def test_a_look_at_the_lock_does_not_take_it(tmp_path: Path) -> None:
    lock = HomeLock(tmp_path)
    lock.acquire()
    assert supervisor_holds(tmp_path)
    lock.release()
    assert not supervisor_holds(tmp_path)
    lock.acquire()
    lock.release()


def test_a_fleet_file_that_names_no_store_is_called_corrupt(tmp_path: Path) -> None:
    from novawf.processes.finding import fleet_address

    lock = HomeLock(tmp_path)
    lock.acquire()
    write_fleet_file(tmp_path, {"pid": 1})
    with pytest.raises(CorruptState, match="restart"):
        fleet_address(find_fleet(tmp_path))
    lock.release()
