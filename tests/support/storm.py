"""A fleet under fire: a store that is killed, connections that break, Novas that are killed.

The store is this test's own process and keeps everything (AOF, fsync at every write), so a loss is
a fault of ours. The fleet reaches it through a proxy; the test looks at it directly. The fleet's
scripts run behind the shim of declared keys, and every command that the store was sent is held
against Dragonfly's list.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import dragonfly
import psutil
from fault_proxy import FaultProxy
from fleet_process import FleetProcess, clean_environment, running_fleet
from redis.exceptions import RedisError
from valkey_process import LOSS_FREE, ValkeyProcess

from novawf.client import Fleet
from novawf.errors import NovawfError, OutOfReach
from novawf.ids import request_id
from novawf.store.connect import connect_sync
from novawf.tasks import claims

T = TypeVar("T")

SUPPORT = Path(__file__).resolve().parent
LEASE_S = 2.0
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "100000",
    "NOVAWF_SUPERVISION__BACKOFF_BASE_S": "0.05",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.2",
    "NOVAWF_SUPERVISION__POISON_AFTER": "1000",
    "NOVAWF_TASKS__LEASE_S": str(LEASE_S),
    "NOVAWF_TASKS__RETRIES": "100",
    "NOVAWF_TASKS__BACKOFF_BASE_S": "0.05",
    "NOVAWF_TASKS__BACKOFF_CAP_S": "1",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
    "PYTHONPATH": f"{SUPPORT / 'behind_shim'}{os.pathsep}{SUPPORT}",
}
"""Limits that exist to stop a fleet which fails this often are raised; the rest is as shipped."""


class Field:
    """The store, the proxy in front of it, and the fleet behind that."""

    def __init__(self, fleet: FleetProcess, store: ValkeyProcess, proxy: FaultProxy) -> None:
        self.fleet = fleet
        self.store = store
        self.proxy = proxy
        self.unknown_commands: set[str] = set()

    def kill_store(self) -> None:
        """SIGKILL; it is gone when this returns."""
        self.hear_commands()
        self.store.kill()

    def hear_commands(self) -> None:
        """Note what the store was sent; its death forgets that."""
        with contextlib.closing(connect_sync(self.store.address)) as client:
            self.unknown_commands |= dragonfly.unknown(client.info("commandstats"))

    def check_discipline(self) -> None:
        """Scripts ran behind the shim, and Dragonfly would have known every command."""
        self.hear_commands()
        assert not self.unknown_commands
        with contextlib.closing(connect_sync(self.store.address)) as client:
            # In this process scripts have the shim's text too, so its name for them is theirs.
            assert client.script_exists(claims._CLAIM.sha1) == [True], "no claim behind the shim"

    def ask(self, question: Callable[[Fleet], Awaitable[T]]) -> T:
        """Ask the store itself, past the proxy."""

        async def asked() -> T:
            async with Fleet.connect(store=self.store.address) as fleet:
                return await question(fleet)

        return asyncio.run(asked())

    def novas(self) -> dict[str, dict[str, Any]]:
        """What `status` says of each Nova."""
        return {nova["id"]: nova for nova in self.ask(lambda fleet: fleet.status())["novas"]}

    def processes(self) -> dict[str, tuple[int, int]]:
        """Process and number of restarts of each Nova and of each shared actor."""
        status = self.ask(lambda fleet: fleet.status())
        children = {nova["id"]: nova for nova in status["novas"]}
        children |= {actor["name"]: actor for actor in status["actors"]}
        return {name: (child["pid"], child["restarts"]) for name, child in children.items()}

    def all_listen(self) -> bool:
        """Whether every Nova does, as far as a store within reach can tell."""
        with contextlib.suppress(NovawfError):
            return all(nova["pid"] and nova["listening"] for nova in self.novas().values())
        return False

    def announced(self) -> Counter[str]:
        """How often the supervisor announced what."""
        return Counter(line["event"] for line in self.fleet.said())

    def kill_nova(self, dice: random.Random) -> bool:
        """SIGKILL one; False when none could be found: the store is away, or all are starting."""
        with contextlib.suppress(NovawfError, psutil.Error):
            pids = sorted(nova["pid"] for nova in self.novas().values() if nova["pid"])
            if pids:
                process = psutil.Process(dice.choice(pids))
                if self.fleet.pid in [parent.pid for parent in process.parents()]:
                    process.send_signal(signal.SIGKILL)
                    return True
        return False


@contextlib.contextmanager
def field(binary: Path, directory: Path, novas: str, **settings: str) -> Iterator[Field]:
    """A fleet that listens; all is gone at the end of the block."""
    for name in ("store", "home"):
        (directory / name).mkdir()
    store = ValkeyProcess(binary, directory / "store", *LOSS_FREE)
    try:
        store.start()
        with FaultProxy(store.address, directory / "p.sock") as proxy:
            flags = ("--novas", novas, "--pace", "0", "--momentum", "off", "--no-console")
            environment = clean_environment(**{**SETTINGS, **settings})
            url = proxy.address.url()
            with running_fleet(
                directory / "home", "--store", url, *flags, env=environment
            ) as fleet:
                world = Field(fleet, store, proxy)
                try:
                    yield world
                    world.check_discipline()
                finally:
                    proxy.delay_s = 0.0
                    with contextlib.suppress(NovawfError, RedisError, OSError):
                        store.kill()
                        store.start()  # or the fleet could not drain
    finally:
        store.kill()


class Submitter:
    """Submits tasks through the proxy, each until its answer arrives, in a thread of its own."""

    def __init__(self, field: Field, specs: list[dict[str, Any]], over_s: float) -> None:
        self.ids: list[str] = []
        self.unsure: list[int] = []
        """Indices of tasks whose first answer was lost."""
        self._field = field
        self._specs = specs
        self._over_s = over_s
        self._requests = request_id()[:16]
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="submitter")

    def request(self, index: int) -> str:
        """The request id of the task with this index."""
        return f"{self._requests}{index:016x}"

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until all are submitted. Raises what went wrong."""
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        assert not self._thread.is_alive(), f"{len(self.ids)} of {len(self._specs)} submitted"

    def spec(self, index: int) -> dict[str, Any]:
        """The task with this index; `after` of the list are indices of earlier ones."""
        spec = dict(self._specs[index])
        if "after" in spec:
            spec["after"] = [self.ids[before] for before in spec["after"]]
        return spec

    def _run(self) -> None:
        try:
            asyncio.run(self._submit_all())
        except BaseException as error:
            self._error = error

    async def _submit_all(self) -> None:
        began = time.monotonic()
        fleet = await self._connected()
        try:
            for index in range(len(self._specs)):
                due = began + self._over_s * index / len(self._specs)
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.ids.append(await self._submit(fleet, index))
        finally:
            await fleet.close()

    async def _connected(self) -> Fleet:
        while True:
            try:
                return await Fleet.connect(store=self._field.proxy.address)
            except OutOfReach:
                await asyncio.sleep(0.05)

    async def _submit(self, fleet: Fleet, index: int) -> str:
        while True:
            try:
                return await fleet.submit(self.spec(index), self.request(index))
            except OutOfReach:
                if not self.unsure or self.unsure[-1] != index:
                    self.unsure.append(index)
                await asyncio.sleep(0.05)


class Storm:
    """Everything that goes wrong, by the clock. `run` in the thread that started the store."""

    def __init__(self, field: Field, seed: int, store_every_s: float = 30.0) -> None:
        self.nova_kills = 0
        self.store_kills = 0
        self._field = field
        self._dice = random.Random(seed)
        self._store_every_s = store_every_s

    def run(self, seconds: float) -> None:
        """Rage for so long; then connections are whole and the store is there."""
        field, dice = self._field, self._dice
        now = began = time.monotonic()
        next_kill = now + dice.uniform(1, 5)
        next_store = now + self._store_every_s
        next_fault = now
        while now < began + seconds:
            if now >= next_kill:
                self.nova_kills += field.kill_nova(dice)
                next_kill = now + dice.uniform(1, 5)
            if now >= next_store:
                field.kill_store()
                time.sleep(dice.uniform(0.2, 2.0))  # what the store's absence takes
                field.store.start()
                self.store_kills += 1
                next_store = now + self._store_every_s
            if now >= next_fault:
                self._break_connections()
                next_fault = now + dice.uniform(0.2, 1.0)
            time.sleep(0.02)
            now = time.monotonic()
        field.proxy.delay_s = 0.0
        field.proxy.lose_replies(0)

    def _break_connections(self) -> None:
        proxy, dice = self._field.proxy, self._dice
        kind = dice.choice(["cut", "cut all", "lose", "lose", "delay", "calm"])
        proxy.delay_s = dice.uniform(0.005, 0.05) if kind == "delay" else 0.0
        if kind.startswith("cut"):
            proxy.cut(1.0 if kind == "cut all" else 0.3)
        elif kind == "lose":
            proxy.lose_replies(dice.randint(1, 6))


def seed_of(name: str) -> int:
    """A seed that is printed with a failure and can be given again by NOVAWF_CHAOS_SEED."""
    seed = int(os.environ.get("NOVAWF_CHAOS_SEED", "0")) or random.SystemRandom().getrandbits(31)
    print(f"{name}: NOVAWF_CHAOS_SEED={seed}")
    return seed
