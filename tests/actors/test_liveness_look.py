"""A Nova that shows itself and does not listen, or does not move, is ended; on a real store."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.child import Child
from actors.liveness import LOOK_S, Liveness
from novawf.clock import ManualClock
from novawf.processes.exits import ExitWatch
from novawf.store import keys
from novawf.supervision.child_spec import ChildSpec
from novawf.supervision.config import SupervisionSettings
from novawf.workflow.identity import NovaBeat


class Scene:
    """One Nova, of which there is only a process, and what looks at it."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.process = subprocess.Popen(["sleep", "600"])
        self.child = Child(ChildSpec("torch"), "nova", "", object, ())
        self.child.pid, self.child.state = self.process.pid, "running"
        self.child.exit = ExitWatch(self.process.pid, None)
        self.moved_ms = clock.now_ms()
        self.said: list[dict[str, Any]] = []
        self.liveness = Liveness(
            [self.child],  # type: ignore[arg-type] # all that it does with a family is look at it
            redis,
            clock,
            SupervisionSettings(),
            10,
            {},
            lambda event, **fields: self.said.append({"event": event, **fields}),
        )

    async def looks(self, seconds: float, moves: bool = True, shows: bool = True) -> None:
        """So much time passes, in which the Nova shows itself and moves, or does not."""
        for _ in range(round(seconds / LOOK_S)):
            self.clock.advance(round(LOOK_S * 1000))
            now_ms = self.clock.now_ms()
            self.moved_ms = now_ms if moves else self.moved_ms
            beat = NovaBeat(
                self.process.pid,
                1,
                "work_discovery",
                "work_phase_1",
                "",
                1,
                now_ms,
                self.moved_ms,
                1,
            )
            if shows:
                await self.redis.hset(keys.NOVAS, "torch", beat.to_json())
            await self.liveness.look()

    async def hears(self) -> list[str]:
        """Read the inbox, as a Nova that listens does."""
        read = []
        while (order := await self.redis.lpop(keys.inbox("torch"))) is not None:
            read.append(order)
        return read

    def ended(self) -> str:
        """Why it was ended; it must have been, by SIGKILL, once."""
        assert self.process.wait(5) == -9
        assert len(self.said) == 1
        return str(self.said[0]["cause"])

    def lives(self) -> bool:
        return self.process.poll() is None and not self.said


@pytest.fixture
def scene(redis: Any, clock: ManualClock) -> Iterator[Scene]:
    scene = Scene(redis, clock)
    yield scene
    scene.process.kill()
    scene.process.wait()


async def test_one_that_listens_and_moves_is_left_alone(scene: Scene) -> None:
    for _ in range(20):
        await scene.looks(20)
        await scene.hears()
    assert scene.lives()


async def test_it_is_pinged_and_one_ping_waits_at_most(scene: Scene) -> None:
    await scene.looks(10)
    assert len(await scene.hears()) == 1


async def test_one_whose_orders_are_not_read_is_deaf(scene: Scene) -> None:
    await scene.looks(58)
    assert scene.lives()
    await scene.looks(8)
    assert "deaf" in scene.ended()


async def test_one_whose_cycle_stands_still_is_stuck(scene: Scene) -> None:
    await scene.looks(30)
    await scene.hears()
    await scene.looks(40, moves=False)
    await scene.hears()
    assert scene.lives()
    for _ in range(8):
        await scene.looks(20, moves=False)
        await scene.hears()
    assert "stuck: work_discovery" in scene.ended()


def _sleep(scene: Scene) -> None:
    scene.clock.advance(3_600_000)


def _away(scene: Scene) -> None:
    scene.liveness._fair_from_ms = scene.clock.now_ms()


@pytest.mark.parametrize("event", [_sleep, _away], ids=["sleep", "outage"])
async def test_after_what_silenced_all_everybody_has_a_full_limit(
    scene: Scene, event: Callable[[Scene], None]
) -> None:
    await scene.looks(50, shows=False)
    event(scene)
    await scene.looks(58, shows=False)
    assert scene.lives()
    await scene.looks(10, shows=False)
    assert "no heartbeat" in scene.ended()
