"""A plain valkey process for tests, independent of the embedded store's own launcher."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from redis.exceptions import AuthenticationError, RedisError
from waiting import wait_until

from novawf.store.connect import StoreAddress, connect_sync

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

LOSS_FREE = ("--appendonly", "yes", "--appendfsync", "always")
"""What a store is given that is to lose nothing when it is killed. (With `everysec` its process
may be killed without a loss too, since the kernel keeps what was written; a machine may not.)"""


class ValkeyProcess:
    """A server in `directory`, answering on a unix socket; it can be killed and started again.

    Start it in a thread that lives as long as it shall: it dies with the thread that started it.
    """

    def __init__(self, binary: Path, directory: Path, *options: str) -> None:
        self.address = StoreAddress.unix(directory / "s.sock")
        self._argv = [
            str(binary), "--port", "0", "--unixsocket", self.address.path, "--dir", str(directory),
            "--save", "", "--logfile", str(directory / "valkey.log"), *options,
        ]  # fmt: skip
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server = subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, no lock taken
        )
        client = connect_sync(self.address)
        wait_until(lambda: _answers(client), 30, what="an answer of the store")
        client.close()

    def kill(self) -> None:
        """SIGKILL, as a crash; it is gone when this returns."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()


@contextlib.contextmanager
def running_valkey(binary: Path, directory: Path, *options: str) -> Iterator[StoreAddress]:
    """A plain server in `directory`, answering on a unix socket, gone at the end."""
    server = ValkeyProcess(binary, directory, *options)
    try:
        server.start()
        yield server.address
    finally:
        server.kill()


def _answers(client: object) -> bool:
    """Whether the server talks at all; one that wants a password does."""
    try:
        client.ping()  # type: ignore[attr-defined]
    except AuthenticationError:
        return True
    except RedisError:
        return False
    return True


def _die_with_parent() -> None:
    """A killed pytest takes its server along."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
