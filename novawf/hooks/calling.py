"""How processes of a hook's tree reach the guard that watches over them.

The guard listens on an abstract socket named by its pid and start time, so it leaves no file, and
any process below it finds it by walking up its parents. Standard library only.
"""

from __future__ import annotations

import json
import os
import socket

from novawf.processes.identity import process_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE_BYTES = 4096
_CONNECT_S = 1.0


def address(pid: int, start_time: int) -> str:
    """The socket of the guard that is this process."""
    return f"\0novawf-hook-{pid}-{start_time}"


def guard_above() -> socket.socket | None:
    """A connection to the nearest guard that this process is below; None when there is none."""
    pid = os.getppid()
    for _ in range(256):
        stat = process_stat(pid)
        if stat is None or pid <= 1:
            return None
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        caller.settimeout(_CONNECT_S)
        try:
            caller.connect(address(pid, stat[2]))
        except OSError:
            caller.close()
        else:
            return caller
        pid = stat[1]
    return None


def ask(message: dict[str, Any]) -> socket.socket | None:
    """Tell the nearest guard something; the answer comes on what is returned."""
    caller = guard_above()
    if caller is None:
        return None
    try:
        caller.sendall(json.dumps(message).encode()[:MESSAGE_BYTES])
        caller.shutdown(socket.SHUT_WR)
    except OSError:
        caller.close()
        return None
    return caller
