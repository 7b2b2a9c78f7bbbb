"""A Nova as a Ray actor: a shell around `novawf.workflow.nova`, which knows no Ray."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actors.handles import LimiterHandle
from novawf.workflow.nova import NovaConfig, NovaRuntime


class NovaActor:
    """One life of one Nova. `join` pends for as long as it works: that call is the watch."""

    def __init__(self, config: NovaConfig) -> None:
        self._config = config
        self._runtime = NovaRuntime(config, LimiterHandle())
        self._started = asyncio.Event()

    def __repr__(self) -> str:
        return self._config.name

    async def start(self) -> dict[str, Any]:
        """Take the identity; answers pid and epoch."""
        epoch = await self._runtime.start()
        self._started.set()
        return {"pid": os.getpid(), "epoch": epoch}

    async def join(self) -> str:
        """Work until drained; answers why it ended."""
        await self._started.wait()
        return await self._runtime.run()

    async def drain(self, limit_s: float) -> None:
        """Take nothing new; end or hand back what is in hand within `limit_s`."""
        if self._started.is_set():  # otherwise it has nothing in hand
            self._runtime.drain(limit_s)
