"""Tells the service manager how the fleet is: systemd's notification protocol, sd_notify(3).

One datagram a word to the socket that NOTIFY_SOCKET names; whoever else speaks the protocol (a
container runtime, a test) is told as well. Telemetry: nothing here raises, waits, or is needed by
the fleet. Not here: when which word is true (`actors/`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Final

VARIABLES: Final = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
"""Meant for this process alone: a command that inherited them could speak for the fleet."""

STATUS_BYTES: Final = 512
"""A status is one line for people; what is longer is cut."""


def address_of(name: str) -> str | None:
    """The socket's address as connect(2) takes it; None for a name that means none of ours.

    `/path` is a file, `@name` an abstract socket (Linux: its name begins with a NUL byte).
    """
    if name.startswith("/"):
        return name
    if name.startswith("@") and len(name) > 1:
        return "\0" + name[1:]
    return None


def watchdog_of(variables: Mapping[str, str], pid: int) -> float | None:
    """Seconds within which the service manager wants to hear of process `pid`; None: never."""
    text, whose = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", str(pid))
    if whose != str(pid) or not text.isdecimal() or int(text) == 0:
        return None
    return int(text) / 1_000_000


def message(**words: str | int) -> bytes:
    """`READY=1` and the like, one a line; line ends within a value become spaces."""
    lines = (f"{word}={' '.join(str(value).split())}" for word, value in words.items())
    return "\n".join(lines).encode("utf-8", "replace")


class Notifier:
    """The service manager, or nobody."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self.address = address
        self.watchdog_s = watchdog_s if address is not None else None
        """It must hear `beat` more often than this; None: it does not ask for that."""
        self._status = ""

    @classmethod
    def of(cls, variables: Mapping[str, str], pid: int) -> Notifier:
        """The one that started process `pid` with these variables."""
        return cls(address_of(variables.get("NOTIFY_SOCKET", "")), watchdog_of(variables, pid))

    def ready(self) -> None:
        """The fleet has started."""
        self._send(READY=1)

    def stopping(self) -> None:
        """It ends, of its own accord or by order."""
        self._send(STOPPING=1)

    def beat(self) -> None:
        """It works: to be said only when that was looked at."""
        self._send(WATCHDOG=1)

    def status(self, text: str) -> None:
        """One line for people; said again only when it has changed."""
        text = text.encode()[:STATUS_BYTES].decode("utf-8", "ignore")
        if text != self._status:
            self._status = text
            self._send(STATUS=text)

    def extend(self, timeout_s: float) -> None:
        """Start or stop may take so much longer from now on; to be said again before that."""
        self._send(EXTEND_TIMEOUT_USEC=max(1, round(timeout_s * 1_000_000)))

    def _send(self, **words: str | int) -> None:
        if self.address is None:
            return
        with (
            contextlib.suppress(OSError),  # it went away, is full, or was never there
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        ):
            sock.setblocking(False)
            sock.sendto(message(**words), self.address)
