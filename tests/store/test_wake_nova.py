"""From a message in a stream to work in a Nova's hands: at once where it is critical, and never
past the gate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nova_world import DONE, Jobs, World
from waiting import until

from novawf.clock import monotonic_s
from novawf.completion.config import CompletionSettings
from novawf.executors.base import Outcome, Report, Work
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.streams.config import StreamSettings
from novawf.streams.controller import StreamController, raw_replies
from novawf.streams.quarantine import Quarantine
from novawf.streams.service import Job, Route, StreamService
from novawf.streams.signal_intake import SignalIntake
from novawf.streams.wake_config import WakeSettings
from novawf.workflow.config import PhaseSettings

TORCH = keys.coordination("torch")
EMERGENCY = {"message": "Database is down", "sender": "monitor", "callable": "test:note"}
SOON_S = 1.0
"""Measured at 2 ms; a wait that polls or a pause that is slept out takes 5 s here."""


class Alarm:
    """A Nova, the reader of its stream, and when its work began."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.began: list[float] = []
        self.jobs = Jobs(note=self.note)
        self._reading: list[tuple[asyncio.Task[None], Any]] = []

    async def note(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        self.began.append(monotonic_s())
        return DONE

    async def start(self, wake: WakeSettings | None = None, **nova: Any) -> None:
        """Read the stream, and let the Nova work."""
        world, settings = self.world, StreamSettings()
        intake = SignalIntake(world.queue, wake or WakeSettings(), load=lambda: 0.0)
        client: Any = connect(world.store, name="reader", block_s=2, decode=False)
        service = StreamService(
            StreamController(raw_replies(client), settings, [TORCH]),
            Quarantine(world.redis, world.clock, 100),
            [Route(TORCH, intake, "torch")],
            [Job("suggestions", 0.05, intake.promote_due)],
            settings,
        )
        self._reading.append((asyncio.create_task(service.run()), client))
        self.nova = await world.nova("torch", self.jobs, **nova)
        world.run(self.nova)

    async def rests(self, state: str) -> None:
        """Until the Nova has settled in a state, and says so."""
        await until(lambda: self.nova.data.current_state.value == state, what=state)
        await until(lambda: self.nova.heartbeat.state is self.nova.data.current_state, what=state)

    async def ring(self, **fields: str) -> float:
        """Send an emergency; answers when, on the monotonic clock."""
        sent_s = monotonic_s()
        await self.world.redis.xadd(TORCH, {**EMERGENCY, **fields})
        return sent_s

    async def answered_s(self, sent_s: float, timeout_s: float = 5.0) -> float:
        """How long after `sent_s` the work began."""
        await until(lambda: bool(self.began), timeout_s, "the start of the work")
        return self.began.pop() - sent_s

    async def close(self) -> None:
        for running, client in self._reading:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.aclose()
        await self.world.close()


@pytest.fixture
async def alarm(redis: Any, valkey_server: StoreAddress, tmp_path: Path) -> AsyncIterator[Alarm]:
    made = Alarm(World(valkey_server, tmp_path))
    await made.world.open_gate()
    try:
        yield made
    finally:
        await made.close()


async def test_a_critical_signal_wakes_an_idle_nova_at_once(alarm: Alarm) -> None:
    await alarm.start()
    await alarm.rests("work_discovery")
    assert await alarm.answered_s(await alarm.ring()) < SOON_S


async def test_from_stream_to_start_takes_milliseconds(alarm: Alarm) -> None:
    """The whole way of a critical signal, forty times. Measured: p50 3.6 ms and p95 6.9 ms with
    a load of 3.9 per core; the project's figure is 10 ms, the bound leaves room for a busy machine.
    """
    await alarm.start()
    await alarm.rests("work_discovery")
    took_s = []
    for n in range(40):
        took_s.append(await alarm.answered_s(await alarm.ring(message=f"emergency {n}")))
        await until(lambda: alarm.nova.steps.idle, what="an idle Nova")
    took_s.sort()
    assert took_s[37] < 0.1, f"p50 {took_s[20] * 1e3:.1f} ms, p95 {took_s[37] * 1e3:.1f} ms"


async def test_a_critical_signal_ends_the_rest_after_a_task(alarm: Alarm) -> None:
    await alarm.start(pace=1.0, completion=CompletionSettings(celebration_s=60, max_pause_s=60))
    await alarm.world.ended(await alarm.world.submit("quick"))
    await alarm.rests("completion_routine")
    assert await alarm.answered_s(await alarm.ring()) < SOON_S


async def test_a_critical_signal_ends_the_personal_phase(alarm: Alarm) -> None:
    phases = PhaseSettings(tasks_per_phase=1, personal_every=1, personal_s=60)
    await alarm.start(pace=1.0, phases=phases, completion=CompletionSettings(max_pause_s=0))
    await alarm.world.ended(await alarm.world.submit("quick"))
    await until(
        lambda: alarm.nova.data.current_phase.value == "personal_phase",
        what="the personal phase",
    )
    assert await alarm.answered_s(await alarm.ring()) < SOON_S


@pytest.mark.parametrize("hold", ["pause", "pause of the fleet", "stop", "verdict"])
async def test_a_critical_signal_does_not_pass_the_gate(alarm: Alarm, hold: str) -> None:
    """It bypasses cooldowns and rhythms, never a person's pause, the stop or the safety verdict."""
    world, gate = alarm.world, alarm.world.gate
    await alarm.start()
    await alarm.rests("work_discovery")
    if hold == "stop":
        await gate.stop("drill", "test")
    elif hold == "verdict":
        await gate.refresh(safe("", world.clock.now_ms() - 1))
    else:
        await gate.pause("torch" if hold == "pause" else None)
    await alarm.ring()
    [task_id] = await until(lambda: world.redis.hkeys(keys.TASK_SPEC), what="the task")
    await alarm.rests("safety_pause")
    assert (await world.status(task_id))[0] == "pending"
    assert alarm.began == []
    if hold == "stop":
        await gate.clear_stop("test")
    elif hold == "verdict":
        await world.open_gate()
    else:
        await gate.resume("torch" if hold == "pause" else None)
    await alarm.answered_s(monotonic_s())


async def test_a_suggestion_becomes_work_of_an_idle_nova(alarm: Alarm) -> None:
    now = {"delays": {"low_s": 0, "background_s": 0}}
    await alarm.start(WakeSettings.model_validate(now))
    await alarm.rests("work_discovery")
    await alarm.ring(message="hello")
    await alarm.answered_s(monotonic_s())
