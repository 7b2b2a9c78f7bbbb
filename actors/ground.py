"""What a supervisor stands on, below Ray: home, sentinel, store, keeper server.

Blocking calls, for a thread of their own: the supervisor brings this up while Ray starts. What
dies underneath is brought back by `tend`, called twice a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from novawf.clock import SystemClock, boot_id
from novawf.errors import InvalidConfig, NovawfError, StoreUnreachable
from novawf.processes.finding import with_password_file
from novawf.processes.guard import Sentinel
from novawf.processes.handover import Handover, reap_others, take_note
from novawf.processes.home import HomeLock, read_fleet_file, remove_fleet_file
from novawf.processes.identity import alive, process_start_time
from novawf.processes.keeper import KeeperServerProcess, start_keeper_server
from novawf.settings import Settings, ensure_home
from novawf.store.anchor import anchor, anchor_by_store
from novawf.store.connect import StoreAddress, connect, parse_url, translate_errors
from novawf.store.embedded import EmbeddedStore
from novawf.store.ownership import Owner, Ownership, Taken
from novawf.store.probe import EpochVerdict, StoreProbe, check_epoch, probe

log = logging.getLogger("novawf.actors")

PREDECESSOR_S = 6.0
"""A sentinel of a dead supervisor is done within 4 s; its work is not to be overtaken."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """What the start found out about the store."""

    address: StoreAddress
    clock_offset_ms: int
    probe: StoreProbe
    epoch: EpochVerdict
    owner: Owner
    taken: Taken


class Ground:
    """Starts, watches and stops what does not know Ray."""

    def __init__(
        self,
        settings: Settings,
        run_id: str,
        environment: Mapping[str, str],
        *,
        outlived: bool = False,
    ) -> None:
        self.settings = settings
        self.outlived = outlived
        """The fleet is to outlive this process, on a cluster, whose nodes have their own keepers:
        then there is neither sentinel nor keeper server here."""
        self.home = settings.fleet.home
        self.run_id = run_id
        self.environment = environment
        self.lock = HomeLock(self.home)
        self.sentinel = Sentinel()
        self.embedded: EmbeddedStore | None = None
        self.keeper: KeeperServerProcess | None = None
        self.password_file: Path | None = None
        self.before: Handover | None = None
        """What this process knew before it was begun anew."""
        self._kept: dict[int, str] = {}

    @property
    def run_dir(self) -> Path:
        """Sockets of this run."""
        return self.home / "run"

    @property
    def log_dir(self) -> Path:
        """Output of tasks."""
        return self.home / "logs" / "tasks"

    def own(self) -> None:
        """Take the home and start the sentinel. Raises HomeInUse."""
        ensure_home(self.home)
        self.lock.acquire()
        _wait_for_predecessor(self.home)
        self.before = take_note(self.home)
        if self.before is not None:
            reap_others(EmbeddedStore.pid_of(self.home))
        self.log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._start_sentinel()

    def start(self) -> StoreReport:
        """Bring up store and keeper server. Raises StoreUnreachable, StoreAuthFailed."""
        self._start_keeper()
        store = self.settings.store
        if store.url is None:
            self.embedded = EmbeddedStore(self.home, store, self._tell_of_store)
            address = self.embedded.start()
            self._tell_of_store()
        else:
            address = parse_url(store.url)
            if store.password_file is not None:
                address = with_password_file(address, store.password_file)
            address = address.with_password(store.password)
            self.password_file = self._hand_on_password(address)
        try:
            with translate_errors(address):
                return asyncio.run(self._look_at(address))
        except StoreUnreachable as error:
            if store.url is None:
                raise
            raise InvalidConfig(f"store.url: {error}") from error  # what was asked for is wrong

    def pids(self) -> set[int]:
        """The processes that stand below Ray."""
        keeper = self.keeper.pid if self.keeper is not None else None
        store = self.embedded.pid if self.embedded is not None else None
        return {pid for pid in (self.sentinel.pid, keeper, store) if pid}

    def guard(self, pid: int, label: str) -> None:
        """Have the sentinel end a process should this one die."""
        self._kept[pid] = label
        self.sentinel.add(pid, label)

    def unguard(self, pid: int) -> None:
        """A guarded process has ended."""
        self._kept.pop(pid, None)
        self.sentinel.drop(pid)

    def tend(self) -> list[str]:
        """Bring back what died underneath; answers what that was."""
        mended = []
        if not self.outlived and not self.sentinel.alive():
            self._start_sentinel()
            mended.append("sentinel")
        if self.keeper is not None and not self.keeper.alive():
            self._start_keeper()
            mended.append("keeper server")
        if self.embedded is not None and not self.embedded.alive:
            try:
                self.embedded.start()
            except NovawfError as error:
                log.error("the embedded store died and does not come back: %s", error)
            else:
                self._tell_of_store()
                mended.append("store")
        return mended

    def stop(self) -> None:
        """End everything, in reverse order."""
        if self.keeper is not None:
            self.keeper.stop()
        if self.embedded is not None:
            self.embedded.stop()
        self.sentinel.done()
        remove_fleet_file(self.home)
        if self.password_file is not None:
            self.password_file.unlink(missing_ok=True)
        self.lock.release()

    def _start_sentinel(self) -> None:
        if self.outlived:
            return
        self.sentinel.start(env=self.environment)
        self.sentinel.run(self.run_id)
        for pid, label in self._kept.items():
            self.sentinel.add(pid, label)
        if self.embedded is not None:
            self._tell_of_store()

    def _start_keeper(self) -> None:
        if self.outlived:
            return
        if self.keeper is not None:
            self.unguard(self.keeper.pid)
            self.keeper.cut()
        self.keeper = start_keeper_server(self.run_dir, env=self.environment)
        self.guard(self.keeper.pid, "keeper")

    def _tell_of_store(self) -> None:
        """The store outlives a supervisor that dies, for a while, to be adopted."""
        if self.embedded is not None and self.embedded.pid is not None:
            self.sentinel.add(self.embedded.pid, "keep")
            self.sentinel.linger(self.embedded.linger_argv())

    def _hand_on_password(self, address: StoreAddress) -> Path | None:
        """Keep the store's password where commands of this user find it, and nobody else."""
        if address.password is None:
            return None
        path = self.run_dir / "store.password"
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as out:
            out.write(address.password + "\n")
        return path

    async def _look_at(self, address: StoreAddress) -> StoreReport:
        redis = connect(address, name="supervisor-start")
        owner = Owner(
            run_id=self.run_id,
            pid=os.getpid(),
            start_time=process_start_time(os.getpid()) or 0,
            boot_id=boot_id(),
            host=socket.gethostname(),
            home=str(self.home),
            on_cluster=self.outlived,
        )
        try:
            offset_ms = await (anchor_by_store(redis) if self.outlived else anchor(redis))
            taken = await Ownership(redis, SystemClock(offset_ms), owner).take(
                lambda other: _is_gone(other, adopts=self.outlived)
            )
            report = StoreReport(
                address=address,
                clock_offset_ms=offset_ms,
                probe=await probe(redis),
                epoch=await check_epoch(redis, self.home / "store.epoch"),
                owner=owner,
                taken=taken,
            )
        finally:
            await redis.aclose()
        return report


def _is_gone(owner: Owner, *, adopts: bool = False) -> bool:
    """Whether a supervisor of this machine is dead, and its sentinel done with what it ran.

    A fleet that it left to a cluster lives on: only who `adopts` that need not wait for a lease.

    Containers of one machine share its boot id, but not their processes: another host name may be
    another container, whose processes cannot be seen from here.
    """
    if owner.on_cluster and not adopts:
        return False
    if owner.host != socket.gethostname() or not owner.boot_id or owner.boot_id != boot_id():
        return False
    begun_anew = owner.pid == os.getpid()  # the image of this process before this one
    if not begun_anew and alive(owner.pid, owner.start_time):
        return False
    _wait_for_predecessor(Path(owner.home))
    return True


def _wait_for_predecessor(home: Path) -> None:
    """Let the sentinel of a supervisor that was killed there finish its work."""
    before = read_fleet_file(home)
    if before is None:
        return
    pid, start_time = before.get("sentinel_pid"), before.get("sentinel_start")
    if not isinstance(pid, int) or not isinstance(start_time, int):
        return
    if alive(pid, start_time):
        _wait_for_exit(pid, start_time, PREDECESSOR_S)


def _wait_for_exit(pid: int, start_time: int, timeout_s: float) -> None:
    """Wait until a foreign process has ended, on its pidfd."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if alive(pid, start_time):
            select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)


def fleet_clock(report: StoreReport) -> SystemClock:
    """The fleet's clock, as anchored in the store."""
    return SystemClock(report.clock_offset_ms)
