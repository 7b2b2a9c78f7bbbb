"""A Nova as a Ray actor: a shell around `novawf.workflow.nova`, which knows no Ray."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actors.handles import LimiterHandle
from actors.shell import Shell
from novawf.workflow.nova import NovaConfig, NovaRuntime


class NovaActor(Shell):
    """One life of one Nova. `join` pends for as long as it works: that call is the watch."""

    def __init__(self, config: NovaConfig | None = None) -> None:
        self._runtime: NovaRuntime | None = None
        self._named = asyncio.Event()
        self._started = asyncio.Event()
        if config is not None:
            self._take(config)

    def __repr__(self) -> str:
        return "spare" if self._runtime is None else self._runtime.config.name

    def _nova(self) -> NovaRuntime:
        if self._runtime is None:
            raise RuntimeError("this actor is a spare: it has no name yet")
        return self._runtime

    def _identity(self) -> tuple[str, int]:
        if self._runtime is None or not self._started.is_set():
            return "", 0
        return self._runtime.config.name, self._runtime.epoch

    def _take(self, config: NovaConfig) -> None:
        self._runtime = NovaRuntime(config, LimiterHandle())
        self._named.set()

    async def stand_by(self) -> int:
        """Ready to become any Nova; answers its pid."""
        return os.getpid()

    async def taken(self) -> None:
        """Pends until it is a Nova: that call is the watch of one that stands by."""
        await self._named.wait()

    async def become(self, config: NovaConfig) -> None:
        """Be this Nova from now on."""
        self._take(config)

    async def start(self) -> dict[str, Any]:
        """Take the identity; answers pid and epoch."""
        self._end_with_node()
        epoch = await self._nova().start()
        self.started = True
        self._started.set()
        return {"pid": os.getpid(), "epoch": epoch}

    async def join(self) -> str:
        """Work until drained; answers why it ended."""
        await self._started.wait()
        ended: str = await self._once(self._nova().run)
        return ended

    async def drain(self, limit_s: float) -> None:
        """Take nothing new; end or hand back what is in hand within `limit_s`."""
        if self._runtime is not None and self._started.is_set():  # else it has nothing in hand
            self._runtime.drain(limit_s)
