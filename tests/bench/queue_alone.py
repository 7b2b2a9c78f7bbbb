"""The queue without a fleet: a store of its own, the real scripts, one claimant, no Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from novawf.clock import SystemClock
from novawf.ids import request_id
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store.connect import connect
from novawf.store.embedded import EmbeddedStore
from novawf.tasks.claims import Claim, Claimant, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.workflow.state_data import StateData

NOVA = "torch"
LANES = 8


class QueueAlone:
    """What a Nova does with the queue, by the same calls. `running` makes it."""

    def __init__(self, redis: Any, nova: Any, nova_epoch: int) -> None:
        self.redis = redis
        self.clock = SystemClock(0)
        self.settings = TaskSettings()
        self.queue = TaskQueue(redis, self.clock, self.settings)
        self.state = StateData()
        self.claimant = Claimant(nova, self.clock, self.settings, NOVA, nova_epoch)

    async def confirm_safety(self) -> None:
        """As the safety actor does, but for an hour."""
        hour = self.clock.now_ms() + 3_600_000
        await Gate(self.redis, self.clock).refresh(safe("bench", hour))

    async def admit(self, specs: list[TaskSpec]) -> None:
        """Queue them, several at a time."""

        async def lane(number: int) -> None:
            for spec in specs[number::LANES]:
                await self.queue.admit(spec, request_id())

        await asyncio.gather(*(lane(number) for number in range(LANES)))

    async def claim(self) -> Claim:
        """Take the next task. Raises RuntimeError when there is none."""
        reply = await self.claimant.claim(self.state.to_hash())
        if not isinstance(reply, Claim):
            raise RuntimeError(f"nothing was claimed: {reply}")
        return reply

    async def complete(self, claim: Claim, result: str, detail: str, *, claim_next: bool) -> Any:
        """End it as completed; the claim that came along, if any."""
        self.state.tasks_completed_in_phase += 1
        finished = await self.claimant.finish(
            claim,
            Ending("completed", ""),
            result=result,
            detail=detail,
            state=self.state.to_hash(),
            claim_next=claim_next,
        )
        return finished.following if isinstance(finished.following, Claim) else None


@contextlib.asynccontextmanager
async def running(directory: Path) -> AsyncIterator[QueueAlone]:
    """A queue on an embedded store in `directory`, ended with the block."""
    store = EmbeddedStore(directory)
    address = await asyncio.to_thread(store.start)
    try:
        redis: Any = connect(address, name="bench")
        nova: Any = connect(address, name="bench-nova", single=True)
        try:
            alone = QueueAlone(redis, nova, await take_identity(redis, NOVA))
            await alone.confirm_safety()
            yield alone
        finally:
            await redis.aclose()
            await nova.aclose()
    finally:
        await asyncio.to_thread(store.stop)
