"""The nodes of a cluster as the supervisor sees them: who can take a Nova, and end what it ran.

A node takes Novas once its keepers (`actors.keepers`) serve. They are started here, watched like
any child by a pending call, adopted by a supervisor that finds them, killed when the fleet ends.
Who moves where is not decided here: a Nova is placed when it is started, and stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ray.exceptions import RayError

from actors.handles import (
    ActorHandle,
    NameTakenError,
    create,
    described,
    find,
    living_nodes,
    this_node,
)
from actors.keepers import NODE_LETTERS, KeepersActor, KeepersConfig
from novawf.clock import monotonic_s
from novawf.errors import Refused
from novawf.processes.remains import SOCKET
from novawf.workflow.nova import NovaConfig

log = logging.getLogger("novawf.actors")

LOOK_S = 1.0
"""How often it is looked for nodes that came or went."""
ANSWER_S = 2.0
"""Keepers that take longer to answer are on a node that is not to be given a Nova."""
START_S = 60.0
"""The first keepers must serve within this time; a node of Ray's may take its time to be ready."""
SERVES_S = 30.0
"""Keepers that take longer to start are hung, and replaced."""
SILENT = 3
"""So many questions in a row that keepers do not answer, and they are hung."""
ASK_S = 10.0
OTHERS_S = 10.0
"""So long the other nodes are waited for, that Novas are not all put on the first."""
PLACE_S = 30.0
"""How long a Nova that is to start waits for a node; then that counts as a failed start."""
STOP_S = 6.0
COMPARE_S = 60.0
"""How often the clocks of other machines are compared with this one's."""
APART_MS = 500
AGAIN_S = 0.2
AGAIN_MOST_S = 30.0
"""Pause after keepers that died; doubled for each that could not be started again."""


@dataclass(slots=True)
class Node:
    """One node whose keepers have served, or do."""

    id: str
    keepers: ActorHandle
    machine: str
    run_dir: str
    offset_ms: int
    serves: bool = True


@dataclass(slots=True)
class Nodes:
    """All of them, by Ray's id."""

    config: KeepersConfig
    announce: Callable[..., None]
    load: Callable[[], Mapping[str, int]]
    """Novas by the id of their node, now."""
    home_node: str = field(default_factory=this_node)
    """The supervisor's own: the shared actors live there."""
    prefix: str = ""
    """What the names of the fleet's actors begin with."""
    known: dict[str, Node] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _compared_s: float = field(default_factory=monotonic_s)
    _placing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _where: dict[str, str] = field(default_factory=dict)
    """Stamp of a life of a Nova → the node it was on."""
    _keepers: dict[str, ActorHandle] = field(default_factory=dict)
    _watches: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def start(self, found: Mapping[str, ActorHandle]) -> None:
        """Begin to watch all nodes; returns when the supervisor's own serves.

        `found` are the fleet's actors that run, by their name. Raises Refused when none can be
        started here.
        """
        for node in {self.home_node, *await self._living()}:
            self._watch(node, found.get(self._name(node)))
        began_s = monotonic_s()
        while not self.known.keys() >= self._watches.keys():  # else all would go to the first
            await asyncio.sleep(0.02)
            waited_s = monotonic_s() - began_s
            if self.home_node in self.known and waited_s > OTHERS_S:
                break
            if waited_s > START_S:
                raise Refused(
                    "ray.address: no keeper server could be started on this node; see "
                    "logs/supervisor.log in the home"
                )

    async def run(self) -> None:
        """Notice nodes that come; for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            for node in await self._living():
                if node not in self._watches or self._watches[node].done():
                    self._watch(node)
            if monotonic_s() - self._compared_s > COMPARE_S:
                self._compared_s = monotonic_s()
                await asyncio.gather(*map(self._compare, self.known.values()))

    async def place(self) -> Node:
        """The node for one more Nova: one that answers, with the fewest of them.

        Raises TimeoutError when there is none for a while.
        """
        async with asyncio.timeout(PLACE_S), self._placing:
            while True:
                load = self.load()
                serving = [node for node in self.known.values() if node.serves]
                for node in sorted(serving, key=lambda node: (load.get(node.id, 0), node.id)):
                    if await self._answers(node):
                        return node
                await asyncio.sleep(LOOK_S / 4)

    def localize(self, config: NovaConfig, node: Node) -> NovaConfig:
        """What a Nova is to know on this node."""
        return replace(
            config,
            keeper_socket=Path(node.run_dir) / SOCKET,
            clock_offset_ms=node.offset_ms,
            held=True,
        )

    def settled(self, stamp: str, node: str) -> None:
        """A life of a Nova began there."""
        self._where[stamp] = node

    def is_here(self, node: str) -> bool:
        """Whether a node's processes are of the supervisor's machine."""
        found, home = self.known.get(node), self.known.get(self.home_node)
        return found is not None and home is not None and found.machine == home.machine

    async def drain(self, stamp: str, timeout_s: float) -> bool:
        """Wait until nothing of a dead life of a Nova is left: as `KeeperClient.drain`."""
        return await self._gone(stamp, timeout_s, retire=True)

    async def end(self, stamp: str, timeout_s: float) -> bool:
        """End what a silent life of a Nova runs: as `KeeperClient.end`."""
        return await self._gone(stamp, timeout_s, retire=False)

    async def _gone(self, stamp: str, timeout_s: float, *, retire: bool) -> bool:
        node = self._where.get(stamp, "")
        gone = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while node in self.known:  # else nobody knows: its lease must run out
                    try:
                        gone = await self._ask(self.known[node], stamp, timeout_s, retire)
                        break
                    except RayError:  # the keepers died too: soon that is noticed
                        await asyncio.sleep(AGAIN_S)
        if gone and retire:
            self._where.pop(stamp, None)
        return gone

    async def _ask(self, node: Node, stamp: str, timeout_s: float, retire: bool) -> bool:
        """Ask its keepers. Of a dead node nobody but another one of the same machine can tell."""
        if node.serves:
            keepers = node.keepers
            return await (keepers.drain_stamp if retire else keepers.end_stamp)(stamp, timeout_s)
        for other in self.known.values():
            if other.serves and other.machine == node.machine:
                return await other.keepers.nothing_left(node.run_dir, timeout_s)
        return False

    async def _answers(self, node: Node) -> bool:
        try:
            async with asyncio.timeout(ANSWER_S):
                await node.keepers.about()
        except (RayError, TimeoutError):
            return False
        return True

    def _name(self, node: str) -> str:
        return f"{self.prefix}keepers-{node[:NODE_LETTERS]}"

    # -- keepers ------------------------------------------------------------------------------

    def _watch(self, node: str, found: ActorHandle | None = None) -> None:
        self._watches[node] = asyncio.create_task(self._keep(node, found))

    async def _keep(self, node: str, keepers: ActorHandle | None) -> None:
        """Keepers on a node for as long as it lives."""
        failures = 0
        while True:
            try:
                if keepers is None:
                    keepers = await create(
                        self._name(node), KeepersActor, self.config, node=node, wait=False
                    )
                self._keepers[node] = keepers
                async with asyncio.timeout(SERVES_S):
                    facts = await keepers.start()
                failures = 0
                self.known[node] = Node(
                    node, keepers, facts["machine"], facts["run_dir"], facts["offset_ms"]
                )
                self.announce("node_serves", node=node[:NODE_LETTERS], machine=facts["machine"])
                await self._until_gone(self.known[node])
            except NameTakenError:
                keepers = find(self._name(node))
                if keepers is not None:
                    continue
            except Exception as error:  # whatever it was: only a living node gets another try
                log.warning("the keepers of node %s: %s", node[:NODE_LETTERS], described(error))
            if node in self.known:
                self.known[node].serves = False
                self.announce("node_lost", node=node[:NODE_LETTERS])
            if keepers is not None:
                keepers.kill()
                keepers = None
            self._keepers.pop(node, None)
            await asyncio.sleep(min(AGAIN_S * 2**failures, AGAIN_MOST_S))
            failures += 1
            if node not in await self._living():
                return

    async def _until_gone(self, node: Node) -> None:
        """Returns when its keepers do not answer any more; raises what their end is told by."""
        ended = asyncio.ensure_future(node.keepers.join())
        try:
            silent = 0
            while silent < SILENT:
                await asyncio.wait([ended], timeout=ASK_S)
                if ended.done():
                    ended.result()
                    return
                silent = 0 if await self._answers(node) else silent + 1
            log.warning("the keepers of node %s do not answer", node.id[:NODE_LETTERS])
        finally:
            ended.cancel()

    async def _living(self) -> set[str]:
        """What Ray says now; what it said last while its GCS does not answer."""
        try:
            async with asyncio.timeout(ANSWER_S):
                self._seen = await asyncio.to_thread(living_nodes)
        except Exception as error:  # whatever it was: the fleet runs on
            log.warning("Ray does not tell its nodes: %s", error)
        return self._seen

    async def _compare(self, node: Node) -> None:
        """Machines whose clocks go apart: leases and permits bear a second, not more."""
        if not node.serves or self.is_here(node.id):
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                apart_ms = await node.keepers.apart_ms()
        except Exception as error:
            log.warning("the clock of node %s: %s", node.id[:NODE_LETTERS], described(error))
            return
        if abs(apart_ms) > APART_MS:
            self.announce("clock_apart", node=node.id[:NODE_LETTERS], milliseconds=apart_ms)

    async def close(self, *, kill: bool) -> None:
        """Watch no more; with `kill` the fleet ends, and the keepers with all they keep."""
        for watch in self._watches.values():
            watch.cancel()
        await asyncio.gather(*self._watches.values(), return_exceptions=True)
        if kill:
            await asyncio.gather(*map(self._stop, self._keepers.values()))
            self.kill()

    async def _stop(self, keepers: ActorHandle) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                await keepers.stop()
        except (RayError, TimeoutError) as error:
            log.warning("%s did not stop in order: %s", keepers.name, described(error))

    def kill(self) -> None:
        """End all keepers, and with them all that they keep."""
        for keepers in self._keepers.values():
            keepers.kill()
