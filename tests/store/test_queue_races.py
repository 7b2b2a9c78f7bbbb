"""Calls of the queue that take several round trips, with something happening in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from novawf.clock import ManualClock
from novawf.ids import request_id
from novawf.store import keys
from novawf.tasks import queue as queue_module
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.tasks.tracker import TaskTracker

DONE = Ending("completed", "succeeded")


class Interleaving:
    """A store's client that lets something else happen before one of its commands."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._before: tuple[str, Callable[[], Awaitable[Any]]] | None = None

    def before(self, word: str, happens: Callable[[], Awaitable[Any]]) -> None:
        self._before = (word, happens)

    async def execute_command(self, *args: Any) -> Any:
        if self._before is not None and self._before[0] in args:
            happens, self._before = self._before[1], None
            await happens()
        return await self._redis.execute_command(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


class Bench:
    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.settings = TaskSettings(lease_s=10)
        self.client = Interleaving(redis)
        self.slow: Any = TaskQueue(self.client, clock, self.settings)  # type: ignore[arg-type]
        self.queue = TaskQueue(redis, clock, self.settings)
        self.tracker = TaskTracker(redis, clock)

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "work", "argv": ["true"], **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def nova(self, name: str = "torch") -> Claimant:
        epoch = await take_identity(self.redis, name)
        return Claimant(self.redis, self.clock, self.settings, name, epoch)

    async def status(self, task_id: str) -> tuple[str, str | None]:
        view = await self.tracker.task(task_id)
        return view["status"], view["outcome"]


@pytest.fixture
async def bench(redis: Any, clock: ManualClock) -> Bench:
    until_ms = clock.now_ms() + 10**9
    await redis.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": until_ms})
    return Bench(redis, clock)


async def run_next(nova: Claimant, ending: Ending = DONE) -> str:
    claim = await nova.claim()
    assert isinstance(claim, Claim)
    await nova.finish(claim, ending, result="{}", detail="", claim_next=False)
    return claim.task_id


async def test_a_task_admitted_behind_a_cause_while_it_is_swept_is_blocked_too(
    bench: Bench,
) -> None:
    first = await bench.submit()
    await bench.submit(after=[first])
    await run_next(await bench.nova(), Ending("blocked", "failed"))
    late: list[str] = []

    async def submit_late() -> None:
        late.append(await bench.submit(after=[first]))

    bench.client.before(queue_module._SETTLE.sha1, submit_late)
    await bench.slow.sweep_cascade()
    assert await bench.status(late[0]) == ("blocked", "dependency")
    assert await bench.redis.scard(keys.CASCADE) == 0


async def test_what_was_blocked_comes_back_though_the_retried_task_ends_at_once(
    bench: Bench,
) -> None:
    first = await bench.submit()
    second = await bench.submit(after=[first])
    nova = await bench.nova()
    await run_next(nova, Ending("blocked", "failed"))
    await bench.queue.sweep_cascade()
    calls = 0

    async def first_runs_meanwhile() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:  # the retry of the first itself: let it pass, come back with the second
            bench.client.before(queue_module._RETRY.sha1, first_runs_meanwhile)
        else:
            assert await run_next(nova) == first

    bench.client.before(queue_module._RETRY.sha1, first_runs_meanwhile)
    await bench.slow.retry(first)
    assert calls == 2
    assert await bench.status(first) == ("completed", "succeeded")
    assert await run_next(nova) == second


async def test_a_chain_of_twelve_hundred_is_blocked_and_taken_up_again(bench: Bench) -> None:
    chain = [await bench.submit()]
    for _ in range(1199):
        chain.append(await bench.submit(after=[chain[-1]]))
    await bench.queue.cancel(chain[0])
    assert (await bench.tracker.counts())["blocked"] == 1200
    await bench.queue.retry(chain[0])
    assert (await bench.tracker.counts())["pending"] == 1200


async def test_a_retried_task_keeps_its_earliest_start(bench: Bench) -> None:
    task_id = await bench.submit(at="2023-11-14T22:14:20Z")  # a minute after the clock's start
    await bench.queue.cancel(task_id)
    await bench.queue.retry(task_id)
    nova = await bench.nova()
    assert not isinstance(await nova.claim(), Claim)
    bench.clock.advance(60_000)
    assert isinstance(await nova.claim(), Claim)


async def test_a_long_history_is_cut_at_whole_lines(bench: Bench) -> None:
    """However long and strange the details are: the task must stay readable."""
    task_id = await bench.submit(retries=60)
    nova = await bench.nova()
    for i in range(60):
        claim = await nova.claim()
        assert isinstance(claim, Claim)
        detail = f"{i} ü|\n\udc80 " + "ü" * 400
        await nova.finish(claim, Ending("retry", ""), result="{}", detail=detail, claim_next=False)
        history = (await bench.tracker.task(task_id))["history"]
        assert history[-1]["event"] == "retry"
        assert history[-1]["detail"].startswith(f"{i} ü/ ? ü")
    assert len(history) < 60
    assert all(event["event"] in ("claimed", "retry") for event in history)


async def test_the_cause_of_a_release_is_one_line_of_the_history(bench: Bench) -> None:
    task_id = await bench.submit()
    await (await bench.nova()).claim()
    await bench.queue.release_owner("torch", "died:\nTraceback | most recent call last")
    history = (await bench.tracker.task(task_id))["history"]
    assert history[-1]["detail"] == "died: Traceback / most recent call last"
