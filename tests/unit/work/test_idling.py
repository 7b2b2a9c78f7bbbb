"""When an idle Nova looks for work: by the time it is given, and never often."""

from __future__ import annotations

import pytest

from novawf.clock import ManualClock
from novawf.tasks.config import TaskSettings
from novawf.tasks.queue import TaskQueue
from novawf.work.config import WorkSettings
from novawf.work.idling import IdleWork
from novawf.work.processor import WorkProcessor


def idle_work(clock: ManualClock, pace: float = 1.0, **settings: object) -> IdleWork:
    """With no discoverers: what is looked at here is only when they would be asked."""
    redis: object = None
    queue = TaskQueue(redis, clock, TaskSettings())  # type: ignore[arg-type]
    processor = WorkProcessor(
        nova="torch", redis=redis, clock=clock, queue=queue, discoverers=(), filler=None
    )  # type: ignore[arg-type]
    return IdleWork(processor, clock, WorkSettings.model_validate(settings), pace)


async def looks(idle: IdleWork, clock: ManualClock, seconds: int) -> list[int]:
    """The seconds at which it looked, asked once a second."""
    found = []
    for second in range(seconds):
        before = idle.processor.counts["cycles"]
        await idle.look()
        if idle.processor.counts["cycles"] > before:
            found.append(second)
        clock.advance(1000)
    return found


async def test_the_first_look_waits_and_later_ones_are_rare(clock: ManualClock) -> None:
    """Thirty seconds of idleness, then every ten minutes: six looks an hour."""
    idle = idle_work(clock)
    assert await looks(idle, clock, 2000) == [30, 630, 1230, 1830]


@pytest.mark.parametrize(("pace", "first_s"), [(0, 5), (0.1, 5), (0.5, 15), (2, 60)])
async def test_pace_scales_the_first_look_down_to_five_seconds(
    clock: ManualClock, pace: float, first_s: int
) -> None:
    """Even at pace 0 a short pause between two pieces of work is no idle time."""
    assert await looks(idle_work(clock, pace), clock, 100) == [first_s]


async def test_work_begins_idle_time_anew(clock: ManualClock) -> None:
    """After a task the Nova waits its thirty seconds again."""
    idle = idle_work(clock)
    assert await looks(idle, clock, 29) == []
    idle.worked("explicit")
    assert await looks(idle, clock, 31) == [30]


@pytest.mark.parametrize("work_type", ["momentum", "strategic"])
async def test_what_a_look_brought_does_not_put_off_or_bring_on_the_next(
    clock: ManualClock, work_type: str
) -> None:
    """Built-in work keeps the rhythm of looks as it is: else each job would cause another look."""
    idle = idle_work(clock)
    assert await looks(idle, clock, 31) == [30]
    idle.worked(work_type)
    assert await looks(idle, clock, 600) == [599]  # ten minutes after the look before


async def test_without_discovery_there_is_never_a_look(clock: ManualClock) -> None:
    """Switched off it asks for no time and does nothing."""
    idle = idle_work(clock, discovery=False)
    assert idle.due_in_s() is None
    assert await looks(idle, clock, 1000) == []


async def test_it_says_when_it_wants_to_be_asked_again(clock: ManualClock) -> None:
    """The Nova's wait is cut to that, so that the first look is not late by an idle wait."""
    idle = idle_work(clock)
    assert idle.due_in_s() == 30
    clock.advance(29_500)
    assert idle.due_in_s() == 0.5
    clock.advance(60_000)
    assert idle.due_in_s() == 0
