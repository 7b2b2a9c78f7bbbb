"""The benchmark's own processes: what they cost, and that none of them stays behind.

Everything started here carries a stamp in its environment, and this process adopts what loses its
parent (PR_SET_CHILD_SUBREAPER), so that both ways of escaping are seen. Nothing is ended that does
not carry the stamp or descend from this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

STAMP = "BENCH_RUN"
PR_SET_CHILD_SUBREAPER = 36
LINGER_S = 8.0
"""How long processes may take to go after their fleet has ended, before that is a fault."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def environment(directory: Path, stamp: str, more: Mapping[str, str]) -> dict[str, str]:
    """What a benchmarked process inherits: ours, without settings of NOVAWF, Ray's files aside."""
    kept = {
        name: value
        for name, value in os.environ.items()
        # Without bytecode files every process would compile what it imports.
        if not name.startswith(("NOVAWF_", "RAY_")) and name != "PYTHONDONTWRITEBYTECODE"
    }
    return {**kept, STAMP: stamp, "RAY_TMPDIR": str(directory), **more}


def left_over(stamp: str, wait_s: float = LINGER_S) -> list[psutil.Process]:
    """Processes of this run that still live after `wait_s`; finished orphans are reaped."""
    deadline_s = time.monotonic() + wait_s
    while True:
        found = {process.pid: process for process in [*_descendants(), *_stamped(stamp)]}
        living = [process for process in found.values() if not _reaped(process)]
        if not living or time.monotonic() >= deadline_s:
            return living
        time.sleep(0.05)


def end(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL each, unless it is gone (psutil compares start times)."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def living(pids: Iterable[int]) -> list[psutil.Process]:
    """Those of the processes that exist, for `end` to compare start times later."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time of living processes so far, in user and system mode."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def memory_mb(pids: Iterable[int]) -> dict[str, float]:
    """Mean USS, PSS and RSS of the processes."""
    found = [psutil.Process(pid).memory_full_info() for pid in pids]
    return {
        name: round(sum(getattr(info, name) for info in found) / len(found) / 2**20, 1)
        for name in ("uss", "pss", "rss")
    }


def below(pid: int) -> dict[int, str]:
    """Every process below `pid`, with what its command line says."""
    found = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found[process.pid] = " ".join(process.cmdline()) or process.name()
    return found


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _stamped(stamp: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.pid != os.getpid() and process.environ().get(STAMP) == stamp:
                found.append(process)
    return found


def _reaped(process: psutil.Process) -> bool:
    """Whether it has ended; an orphan of ours that has is taken off the process table."""
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return False
        if process.ppid() == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    except psutil.NoSuchProcess:
        pass
    return True
