"""How a process ended that is not our child: by its pidfd, where the kernel tells (Linux 6.15).

Elsewhere nothing is known, and nothing is guessed. Also how often the kernel has killed for want of
memory in our control group.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
from pathlib import Path
from typing import NamedTuple

from novawf.processes.identity import alive

_SIZE = 64
_GET_INFO = (3 << 30) | (_SIZE << 16) | (0xFF << 8) | 11
"""`_IOWR(0xFF, 11, struct pidfd_info)` of linux/pidfd.h, its first published size."""
_EXIT = 1 << 3
"""PIDFD_INFO_EXIT: the exit status is asked for, and was there."""
_STATUS_AT = 60


class Exit(NamedTuple):
    """How a process ended: one of the two."""

    code: int | None
    signal: int | None


class ExitWatch:
    """Knows one process from its life to its end. Close it."""

    def __init__(self, pid: int, start_time: int | None) -> None:
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.pidfd_open(pid)
        if start_time is not None and not alive(pid, start_time):
            self.close()

    def ended(self) -> Exit | None:
        """How it ended; None while it lives, before its parent has buried it, or unknown."""
        if self._descriptor < 0:
            return None
        info = bytearray(struct.pack("<Q", _EXIT).ljust(_SIZE, b"\0"))
        try:
            fcntl.ioctl(self._descriptor, _GET_INFO, info)
        except OSError:
            return None
        if not struct.unpack_from("<Q", info)[0] & _EXIT:
            return None
        (status,) = struct.unpack_from("<i", info, _STATUS_AT)
        if os.WIFSIGNALED(status):
            return Exit(None, os.WTERMSIG(status))
        return Exit(os.WEXITSTATUS(status), None)

    def kill(self) -> bool:
        """SIGKILL to that very process, whoever has its pid by now; False when that cannot be."""
        if self._descriptor < 0:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        return True

    def close(self) -> None:
        """Let go of the process."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def memory_kills() -> int:
    """Processes that the kernel has killed for want of memory in our control group; 0 unknown."""
    try:
        group = Path("/proc/self/cgroup").read_text().splitlines()[-1].partition("::")[2]
        events = Path(f"/sys/fs/cgroup{group}/memory.events").read_text()
    except (OSError, IndexError):
        return 0
    counts = dict(line.split() for line in events.splitlines() if len(line.split()) == 2)
    return int(counts.get("oom_kill", 0))
