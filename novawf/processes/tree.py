"""The descendants of a process: find them and signal them, and nobody else.

Works for a root that is a subreaper (`become_subreaper`): then whatever its descendants start
stays below it, however it detaches itself. Standard library only.
"""

from __future__ import annotations

# Runs in bare interpreters, where pathlib would cost 1 MB.
# ruff: noqa: PTH110, PTH208
import ctypes
import os

from novawf.processes.identity import process_stat, read_small, signal_confirmed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

_prctl = ctypes.CDLL(None, use_errno=True).prctl


def prctl(option: int, value: int | bytes) -> None:
    """prctl(2). Raises OSError."""
    if _prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def become_subreaper() -> None:
    """Orphans among this process's descendants become its children from now on."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def children(pid: int) -> list[int]:
    """Pids of the living and unreaped children of `pid`. May miss one that is being born."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        text = read_small(f"/proc/{pid}/task/{thread}/children", 1 << 16)
        if text is None and not os.path.exists("/proc/thread-self/children"):
            return _children_by_scan(pid)
        found += map(int, (text or b"").split())
    return found


def _children_by_scan(pid: int) -> list[int]:
    """The same for kernels built without CONFIG_PROC_CHILDREN: look at every process."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = process_stat(int(entry))
            if stat is not None and stat[1] == pid:
                found.append(int(entry))
    return found


def descendants(root: int, skip: Collection[int] = ()) -> list[int]:
    """Pids below `root`, parents first; those in `skip` are left out with all below them."""
    found: list[int] = []
    level = [root]
    while level:
        level = [
            child
            for parent in level
            for child in children(parent)
            if child not in skip and child not in found
        ]
        found += level
    return found


def is_descendant(pid: int, root: int) -> bool:
    """Whether the chain of parents of `pid` leads to `root`, as things stand now."""
    for _ in range(4096):  # a chain is finite; this bounds one that changes while we walk it
        stat = process_stat(pid)
        if stat is None or stat[1] <= 1:
            return False
        if stat[1] == root:
            return True
        pid = stat[1]
    return False


def signal_descendants(root: int, signum: int, skip: Collection[int] = ()) -> int:
    """Signal each descendant of `root` that confirms to be one; answers how many were signalled."""
    return sum(
        signal_confirmed(pid, signum, lambda pid: is_descendant(pid, root))
        for pid in descendants(root, skip)
    )
