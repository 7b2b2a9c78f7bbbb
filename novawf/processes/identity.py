"""Who a process is: pid and start time together. A pid alone names nobody for long.

Reads /proc; standard library only. It judges and signals nothing but what `signal_confirmed` is
told to, and that only while the identity still holds.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def read_small(path: str, limit_bytes: int = 4096) -> bytes | None:
    """The beginning of a /proc file; None when it is gone or not ours to read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, limit_bytes)
    except OSError:
        return None
    finally:
        os.close(fd)


def process_stat(pid: int) -> tuple[str, int, int] | None:
    """(state letter, parent's pid, start time in ticks since boot), or None when it is gone."""
    text = read_small(f"/proc/{pid}/stat")
    if not text:
        return None
    # The command's name may hold spaces and parentheses: count from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return fields[0].decode(), int(fields[1]), int(fields[19])


def process_start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (ticks since boot), or None when there is no such process."""
    stat = process_stat(pid)
    return None if stat is None else stat[2]


def alive(pid: int, start_time: int) -> bool:
    """Whether exactly this process still runs. A zombie does not."""
    stat = process_stat(pid)
    return stat is not None and stat[2] == start_time and stat[0] not in "ZX"


def signal_confirmed(pid: int, signum: int, is_it: Callable[[int], bool]) -> bool:
    """Signal `pid` if `is_it(pid)` holds for the very process that the signal goes to.

    The pidfd pins the process first; if the pid was taken over before that, `is_it` sees the new
    owner; if after, the signal finds nobody. Answers whether a signal was sent.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_it(pid):
            return False
        signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True
