"""Whether a TCP port can be had, said before anything has started. Light: no prometheus here."""

from __future__ import annotations

import errno
import importlib
import socket
from typing import Any, Final

from novawf.errors import InvalidConfig, PortInUse, UserError

_TAKEN: Final = errno.EADDRINUSE


def check_port_free(host: str, port: int, what: str) -> None:
    """Raise PortInUse when somebody listens on `port`; InvalidConfig when it cannot be had at all.

    `what` says what the port is for and how to choose another, e.g. `metrics (--metrics-port)`.
    Port 0 asks for any free one and is always well. Nothing stays bound, so whoever listens later
    still meets a port taken meanwhile.
    """
    if port == 0:
        return
    try:
        family, address = resolve(host, port)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As servers do: a port whose last connections are only lingering counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        raise bind_error(host, port, what, error) from None


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Family and address to bind `host` and `port`. Raises OSError, OverflowError."""
    if not 0 <= port <= 65535:  # the resolver would take it modulo 65536
        raise OverflowError("ports go from 0 to 65535")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def bind_error(host: str, port: int, what: str, error: Exception) -> UserError:
    """The error of a failed bind, in one line: what, to what, what to do."""
    where = f"port {port} of {host}" if host else f"port {port}"
    if getattr(error, "errno", None) == _TAKEN:
        return PortInUse(f"{what}: {where} is in use{_by_whom(port)}; end that or take another")
    return InvalidConfig(f"{what}: cannot listen on {where}: {_text(error)}; take another")


def _text(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def _by_whom(port: int) -> str:
    """` by pid N (name)` where we are allowed to see it, else nothing."""
    # 20 ms, so only once it has failed; it comes without types.
    psutil: Any = importlib.import_module("psutil")

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            if listens and connection.pid:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return ""
