"""The service manager's end of sd_notify(3): a datagram socket, and what was said to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path


class ServiceManager:
    """Everything that was said, in order, as `WORD=value` lines."""

    def __init__(self, address: str, name: str) -> None:
        self.name = name
        """The value of NOTIFY_SOCKET."""
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def heard(self, line: str) -> bool:
        """Whether some line begins so."""
        return any(said.startswith(line) for said in self.said)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(5)
        self._socket.close()

    def _read(self) -> None:
        while data := self._socket.recv(1 << 16):
            self.said += data.decode().split("\n")


@contextlib.contextmanager
def service_manager(path: Path | str) -> Iterator[ServiceManager]:
    """One that listens at a path, or at an abstract name (`@…`)."""
    name = str(path)
    manager = ServiceManager("\0" + name[1:] if name.startswith("@") else name, name)
    try:
        yield manager
    finally:
        manager.close()
