"""What a node of a cluster needs below its Novas: a keeper server, directories, the fleet's time.

One such actor a node, detached like the Novas it serves. It holds the server's lifeline: when it
ends, with its raylet or by order, the server ends all that runs on the node, as it does for a
supervisor on one machine (decision 004). It starts and watches no Nova.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.handles import fleet_of_this_actor, this_node
from actors.shell import Shell
from novawf.clock import boot_id
from novawf.errors import ExecutorLost
from novawf.processes.keeper import KeeperClient, KeeperServerProcess, start_keeper_server
from novawf.processes.remains import SOCKET, nothing_left
from novawf.settings import ensure_home
from novawf.store.anchor import anchor_by_store, apart_ms
from novawf.store.connect import StoreAddress, connect

TEND_S = 0.5
NODE_LETTERS = 12
"""Of a node's id: enough to tell nodes apart, and short enough for a socket's path."""


@dataclass(frozen=True, slots=True)
class KeepersConfig:
    """What a node's keepers need to know."""

    store: StoreAddress = field(repr=False)
    home: Path
    """The same path on every node; made where it is missing."""
    cwd: str
    """Where commands without a directory of their own run, if the node has it; else the home."""
    env: Mapping[str, str] = field(repr=False)


class KeepersActor(Shell):
    """The keepers of one node."""

    def __init__(self, config: KeepersConfig) -> None:
        self.config = config
        # Fleets that share a cluster may share the home's path too.
        fleet = fleet_of_this_actor().rstrip("/")
        self.run_dir = config.home / "run" / f"{fleet}-{this_node()[:NODE_LETTERS]}"
        self._offset_ms = 0
        self._server: KeeperServerProcess | None = None
        self._client = KeeperClient(self.run_dir / SOCKET)
        self._starting = asyncio.Lock()

    def __repr__(self) -> str:
        return "keepers"

    async def start(self) -> dict[str, Any]:
        """Begin to serve; answers what `about` does. A repeat changes nothing. Raises what is
        wrong with the node: a home that cannot be made, a store out of reach."""
        async with self._starting:
            if self._server is None:
                self._end_with_node()
                redis = connect(self.config.store, name="keepers")
                try:
                    self._offset_ms = await anchor_by_store(redis)
                finally:
                    await redis.aclose()
                self._prepare()
                self._server = await asyncio.to_thread(self._serve)
        return await self.about()

    async def about(self) -> dict[str, Any]:
        """Who this is, and what a Nova on this node is to be told."""
        return {
            **await super().about(),
            "machine": f"{socket.gethostname()} {boot_id()}",
            "run_dir": str(self.run_dir),
            "offset_ms": self._offset_ms,
        }

    async def join(self) -> str:
        """Bring the server back when it dies; for as long as the actor lives."""
        await self._once(self._tend)
        return "ended"

    async def apart_ms(self) -> int:
        """How far fleet time here is behind the supervisor's, in ms."""
        redis = connect(self.config.store, name="keepers")
        try:
            return await apart_ms(redis, self._offset_ms)
        finally:
            await redis.aclose()

    async def stop(self) -> None:
        """End the server with all it keeps; for good."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.stop)

    async def drain_stamp(self, stamp: str, timeout_s: float) -> bool:
        """See `KeeperClient.drain`."""
        return await self._ask(self._client.drain, stamp, timeout_s)

    async def end_stamp(self, stamp: str, timeout_s: float) -> bool:
        """See `KeeperClient.end`."""
        return await self._ask(self._client.end, stamp, timeout_s)

    async def nothing_left(self, run_dir: str, timeout_s: float) -> bool:
        """Whether the keepers of another node of this machine, which is dead, have ended all."""
        return await nothing_left(run_dir, timeout_s)

    async def _ask(self, ask: Any, stamp: str, timeout_s: float) -> bool:
        try:
            return bool(await ask(stamp, timeout_s))
        except ExecutorLost:
            return False  # the server is coming back: the caller asks again, or lets the lease run

    def _prepare(self) -> None:
        ensure_home(self.config.home)
        (self.config.home / "logs" / "tasks").mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            os.chdir(self.config.cwd)
        except OSError:
            os.chdir(self.config.home)

    def _serve(self) -> KeeperServerProcess:
        return start_keeper_server(self.run_dir, env=self.config.env)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            if self._server is not None and not self._server.alive():
                self._server.cut()
                self._server = await asyncio.to_thread(self._serve)
