"""How children start and end, without Ray: actors here are tasks that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from waiting import until

from actors.child import Child, Watch
from actors.draining import Draining, Waiting
from actors.family import Family
from novawf.clock import SystemClock
from novawf.supervision.child_spec import ChildSpec
from novawf.supervision.config import SupervisionSettings


class Actor:
    """Stands in for a process of Ray's."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.limits_s: list[float] = []

    async def start(self) -> dict[str, Any]:
        self.world.starting.append(self.name)
        self.world.most_at_once = max(self.world.most_at_once, len(self.world.starting))
        try:
            await self.world.may_start(self.name, self.ended)
        finally:
            self.world.starting.remove(self.name)
        self.world.started.append(self.name)
        return {"pid": 2**22 + 1, "epoch": 1}  # more than any pid: nobody's

    async def join(self) -> str:
        return await self.ended

    async def drain(self, limit_s: float) -> None:
        self.limits_s.append(limit_s)
        self.world.asked.append(self.name)
        if self.name in self.world.deaf:
            await asyncio.Event().wait()
        if self.name not in self.world.busy or limit_s == 0:
            self.end()

    def end(self) -> None:
        if not self.ended.done():
            self.ended.set_result("drained")

    def kill(self) -> None:
        if not self.ended.done():
            self.world.killed.append(self.name)
            self.ended.set_exception(RuntimeError("killed"))
            self.ended.exception()  # retrieved: nobody may be waiting


class World:
    """What actors do, and what was seen of them."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.busy: set[str] = set()
        self.deaf: set[str] = set()
        self.starting: list[str] = []
        self.started: list[str] = []
        self.asked: list[str] = []
        self.killed: list[str] = []
        self.stopped: list[str] = []
        self.most_at_once = 0
        self.told: list[Waiting] = []
        self.ordered_s: list[float] = []

    async def may_start(self, name: str, ended: asyncio.Future[str]) -> None:
        """Until it is let go on; raises when it is killed meanwhile."""
        if name in self.held:
            going_on = asyncio.ensure_future(self.held[name].wait())
            await asyncio.wait({going_on, ended}, return_when=asyncio.FIRST_COMPLETED)
            going_on.cancel()
        if ended.done():
            ended.result()
        await asyncio.sleep(0)

    async def make(self, child: Child) -> Any:
        self.actors[child.spec.id] = Actor(self, child.spec.id)
        return self.actors[child.spec.id]

    async def changed(self, child: Child) -> None:
        if child.state == "stopped":
            self.stopped.append(child.spec.id)

    async def nothing(self, *_: Any) -> None:
        pass

    def family(self, at_once: int = 100) -> Family:
        watch = Watch(
            clock=SystemClock(0), settings=SupervisionSettings(), turns=asyncio.Semaphore(at_once),
            make=self.make, free=lambda *_: None, changed=self.changed, born=lambda _: None,
            died=self.nothing, restarts=self.nothing,
        )  # fmt: skip
        return Family(watch, lambda _: None)

    def draining(self, family: Family, limit_s: float) -> Draining:
        def order() -> float | None:
            return self.ordered_s.pop(0) if self.ordered_s else None

        return Draining(family, limit_s, ordered_s=order, tell=self.told.append)


def child(name: str, kind: Any = "nova", shutdown_s: float = 0.2) -> Child:
    return Child(ChildSpec(name, shutdown_s=shutdown_s), kind, name, object, ())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def start(world: World) -> AsyncIterator[Callable[..., Any]]:
    """Starts a family of these children; all watches are over at the end."""
    families = []

    async def started(*children: Child, at_once: int = 100, wait: bool = True) -> Family:
        family = world.family(at_once)
        families.append(family)
        for one in children:
            family.start(one)
        if wait:
            await until(lambda: all(one.alive for one in children))
        return family

    yield started
    for family in families:
        await family.close()


async def test_first_starts_take_turns_in_their_order(world: World, start: Any) -> None:
    """150 at once would only slow each other down."""
    names = [f"n{number}" for number in range(9)]
    await start(*map(child, names), at_once=2)
    assert world.most_at_once == 2
    assert world.started == names


async def test_a_restart_does_not_wait_for_first_starts(world: World, start: Any) -> None:
    """Its task waits for it; those that never ran have none."""
    world.held["slow"] = asyncio.Event()
    torch, slow, late = child("torch"), child("slow"), child("late")
    await start(torch, slow, late, at_once=1, wait=False)
    await until(lambda: world.starting == ["slow"])
    world.actors["torch"].kill()
    await until(lambda: torch.restarts == 1 and torch.alive)
    assert world.started == ["torch", "torch"]
    assert late.state == "starting"


async def test_all_novas_are_asked_at_once_and_shared_actors_outlive_them(
    world: World, start: Any
) -> None:
    """The last started first; what is shared is needed until the last Nova has ended."""
    family = await start(
        child("safety", "actor", 0), child("limiter", "actor", 0), child("torch"), child("echo"),
        child("streams", "actor", 0),
    )  # fmt: skip
    world.busy = {"torch"}
    ending = asyncio.create_task(world.draining(family, 60).run())
    await until(lambda: world.told)
    assert world.asked == ["echo", "torch"]
    assert world.told[0].children == ("torch",)
    world.actors["limiter"].kill()  # and so is one that dies meanwhile
    await until(lambda: family.get("limiter").restarts == 1 and family.get("limiter").alive)
    world.actors["torch"].end()
    await ending
    assert world.killed == ["limiter", "streams", "limiter", "safety"]
    assert world.stopped == ["echo", "torch", "streams", "limiter", "safety"]


async def test_a_nova_that_does_not_end_is_killed_after_its_limits(
    world: World, start: Any
) -> None:
    """`drain_s` for its work, `shutdown_s` for itself."""
    family = await start(child("torch"), child("echo"))
    world.busy = {"torch"}
    await world.draining(family, 0.1).run()
    assert world.actors["torch"].limits_s == [0.1]
    assert world.killed == ["torch"]


async def test_a_nova_that_hears_nothing_is_killed_long_before_the_limit(
    world: World, start: Any
) -> None:
    """It will never say that it is done."""
    family = await start(child("torch"), child("echo"))
    world.deaf = {"torch"}
    async with asyncio.timeout(10):
        await world.draining(family, 600).run()
    assert world.killed == ["torch"]


async def test_one_that_starts_is_ended_and_one_whose_turn_has_not_come_never_starts(
    world: World, start: Any
) -> None:
    """Neither has anything in hand."""
    world.held["slow"] = asyncio.Event()
    family = await start(child("slow"), child("late"), at_once=1, wait=False)
    await until(lambda: world.starting == ["slow"])
    async with asyncio.timeout(10):
        await world.draining(family, 600).run()
    await until(lambda: set(world.stopped) == {"slow", "late"})
    assert world.killed == ["slow"]
    assert set(world.actors) == {"slow"}


async def test_a_new_limit_counts_from_when_it_is_ordered(world: World, start: Any) -> None:
    """Shorter or longer; the Nova is asked again."""
    family = await start(child("torch"))
    world.busy = {"torch"}
    world.ordered_s = [300, 0]
    draining = world.draining(family, 600)
    async with asyncio.timeout(10):
        await draining.run()
    assert world.actors["torch"].limits_s == [600, 300, 0]
    assert draining.limit_s == 0
    assert world.killed == []


async def test_a_fleet_that_was_replaced_asks_nobody(world: World, start: Any) -> None:
    """Its names belong to another supervisor: nothing may be handed back in them."""
    family = await start(child("safety", "actor", 0), child("torch"), child("echo"))
    await world.draining(family, 600).run(hand_back=False)
    assert world.asked == []
    assert set(world.killed) == {"torch", "echo", "safety"}


@pytest.mark.parametrize(
    ("waiting", "text"),
    [
        (Waiting(("torch",), 3.4), "waiting for torch; work in hand is handed back in 3 s"),
        (Waiting(("torch",), 0), "waiting for torch to hand back its work"),
        (
            Waiting(tuple("abcdefg"), 60),
            "waiting for a, b, c, d, e and 2 more; work in hand is handed back in 60 s",
        ),
    ],
)
def test_who_is_waited_for_fits_on_a_line(waiting: Waiting, text: str) -> None:
    """Also of 150."""
    assert waiting.text() == text
