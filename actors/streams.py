"""The reader of the fleet's streams as a Ray actor: a shell around `novawf.streams.assembly`.

It keeps nothing that the store does not: what a dead life was given is pending there, and taken by
the next.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actors.shell import Shell
from novawf.clock import SystemClock
from novawf.streams.assembly import FleetStreams, StreamConfig


class StreamsActor(Shell):
    """Reads work and messages from outside, trims streams, runs the fleet's regular jobs."""

    def __init__(self, config: StreamConfig, clock_offset_ms: int) -> None:
        self._config = config
        self._clock = SystemClock(clock_offset_ms)
        self._streams: FleetStreams | None = None
        self._started = asyncio.Event()

    def __repr__(self) -> str:
        return "streams"

    async def start(self) -> dict[str, Any]:
        """Connect; answers its pid."""
        self._streams = FleetStreams(self._config, self._clock)
        self.started = True
        self._started.set()
        return {"pid": os.getpid()}

    async def ping(self) -> None:
        """Answers: the event loop turns."""

    async def join(self) -> str:
        """Read for as long as the actor lives."""
        await self._started.wait()
        if self._streams is not None:
            await self._once(self._streams.run)
        return "ended"

    async def add_novas(self, names: list[str]) -> None:
        """Serve these Novas too, from now on."""
        if self._streams is not None:
            self._streams.add_novas(names)
