"""The safety orchestrator as a Ray actor: a shell around `novawf.safety.orchestrator`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from actors.shell import Shell
from novawf.audit.log import AuditLog
from novawf.clock import SystemClock
from novawf.limits.budget_config import BudgetSettings
from novawf.safety.assembly import orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.orchestrator import SafetyOrchestrator
from novawf.store.connect import StoreAddress, connect


class SafetyActor(Shell):
    """Renews the safety verdict; while it is dead the verdict runs out and nothing starts."""

    def __init__(
        self,
        store: StoreAddress,
        clock_offset_ms: int,
        settings: SafetySettings,
        budget: BudgetSettings,
        home: Path | None,
    ) -> None:
        """`home`: where the audit is; None on a cluster, whose actors live elsewhere."""
        self._budget = budget
        self._audit = AuditLog.disabled() if home is None else AuditLog(home)
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
        self._orchestrator = orchestrator_of(
            redis, self._clock, self._settings, self._store, self._note, self._budget
        )
        self.started = True
        self._started.set()
        return {"pid": os.getpid()}

    def _note(self, action: str, target: str, before: str, after: str) -> None:
        """Into the audit; a thread would only lose what a crash follows."""
        self._audit.record(
            who="safety", action=action, target=target, before=before or None, after=after
        )

    async def ping(self) -> None:
        """Answers: the event loop turns."""

    async def join(self) -> str:
        """Evaluate and renew for as long as the actor lives."""
        await self._started.wait()
        if self._orchestrator is not None:
            await self._once(self._orchestrator.run)
        return "ended"
