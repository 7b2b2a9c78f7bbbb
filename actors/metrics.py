"""The metrics aggregator as a Ray actor: a shell around `novawf.telemetry.prometheus`.

It keeps nothing: every figure is read from the store when Prometheus asks, so its death loses
none, and a store that is away shows as `novawf_store_up 0`.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actors.shell import Shell
from novawf.fleet_metrics import serve_metrics
from novawf.store.connect import StoreAddress
from novawf.telemetry.config import MetricsSettings


class MetricsActor(Shell):
    """Serves /metrics."""

    def __init__(
        self,
        store: StoreAddress,
        clock_offset_ms: int,
        settings: MetricsSettings,
    ) -> None:
        self._store = store
        self._offset_ms = clock_offset_ms
        self._settings = settings

    def __repr__(self) -> str:
        return "metrics"

    async def start(self) -> dict[str, Any]:
        """Listen; answers its pid. Raises PortInUse."""
        server = serve_metrics(
            self._store, self._offset_ms, self._settings.host, self._settings.port
        )
        await asyncio.to_thread(server.start)
        self._server = server
        self.started = True
        return {"pid": os.getpid()}

    async def ping(self) -> None:
        """Answers: the event loop turns."""

    async def join(self) -> str:
        """Pends for as long as the actor lives."""
        await asyncio.Event().wait()
        return "ended"
