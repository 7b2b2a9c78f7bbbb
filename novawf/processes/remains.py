"""Whether a keeper server that is gone has left anything behind.

Server and keepers hold one lock file open; the kernel lets go of it when the last of them has
ended, and a keeper ends only when its whole tree has. Whoever gets the lock knows.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from novawf.clock import monotonic_s

SOCKET = "keeper.sock"
_LOOK_AGAIN_S = 0.02


async def nothing_left(run_dir: str | Path, timeout_s: float) -> bool:
    """Wait until the keepers of the server at `run_dir` have ended all; False: not in time.

    Only for a server that is dead, of this machine. Where there never was one nothing is left.
    """
    deadline_s = monotonic_s() + timeout_s
    try:
        file = os.open(Path(run_dir) / f"{SOCKET}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if monotonic_s() >= deadline_s:
                    return False
                await asyncio.sleep(_LOOK_AGAIN_S)
            else:
                return True
    finally:
        os.close(file)
