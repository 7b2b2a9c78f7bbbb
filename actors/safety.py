"""The safety orchestrator as a Ray actor: a shell around `novawf.safety.orchestrator`."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actors.shell import Shell
from novawf.clock import SystemClock
from novawf.safety.assembly import orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.orchestrator import SafetyOrchestrator
from novawf.store.connect import StoreAddress, connect


class SafetyActor(Shell):
    """Renews the safety verdict; while it is dead the verdict runs out and nothing starts."""

    def __init__(self, store: StoreAddress, clock_offset_ms: int, settings: SafetySettings) -> None:
        self._store = store
        self._clock = SystemClock(clock_offset_ms)
        self._settings = settings
        self._orchestrator: SafetyOrchestrator | None = None
        self._started = asyncio.Event()

    def __repr__(self) -> str:
        return "safety"

    async def start(self) -> dict[str, Any]:
        """Connect; answers its pid."""
        redis = connect(self._store, name="safety")
        self._orchestrator = orchestrator_of(redis, self._clock, self._settings, self._store)
        self.started = True
        self._started.set()
        return {"pid": os.getpid()}

    async def ping(self) -> None:
        """Answers: the event loop turns."""

    async def join(self) -> str:
        """Evaluate and renew for as long as the actor lives."""
        await self._started.wait()
        if self._orchestrator is not None:
            await self._once(self._orchestrator.run)
        return "ended"
