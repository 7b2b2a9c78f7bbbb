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


@contextlib.contextmanager
def running_valkey(binary: Path, directory: Path, *options: str) -> Iterator[StoreAddress]:
    """A plain server in `directory`, answering on a unix socket, gone at the end."""
    socket = directory / "s.sock"
    server = subprocess.Popen(
        [
            str(binary), "--port", "0", "--unixsocket", str(socket), "--dir", str(directory),
            "--save", "", "--logfile", str(directory / "valkey.log"), *options,
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads run yet
    )  # fmt: skip
    try:
        address = StoreAddress.unix(socket)
        client = connect_sync(address)
        wait_until(lambda: _answers(client), what="an answer of the store")
        client.close()
        yield address
    finally:
        server.kill()
        server.wait()


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
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
