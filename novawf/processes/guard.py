"""The supervisor's side of the sentinel: start it, tell it what to end should we die.

Not here: the ending itself (`sentinel`), and orderly stopping, which is the supervisor's.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from novawf.processes.identity import process_start_time
from novawf.processes.keeper import BOOT

_LOST = (BrokenPipeError, BlockingIOError)


class Sentinel:
    """A sentinel that runs for us. All calls are quick; none raises if it has gone.

    Use `alive` to see whether it has; the supervisor starts another one then, and tells it all.
    """

    def __init__(self) -> None:
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def start(self, python: str = sys.executable, env: Mapping[str, str] | None = None) -> int:
        """Start it; answers its pid. `env` None inherits ours."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [python, "-I", "-S", str(BOOT), "novawf.processes.sentinel", str(read)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(read,),
                start_new_session=True,
                env=env,
                cwd="/",
            )
        except BaseException:
            os.close(write)
            raise
        finally:
            os.close(read)
        os.set_blocking(write, False)  # a sentinel that hangs must not hang the supervisor
        self._lifeline = write
        self.pid = self._process.pid
        return self.pid

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process is not None and self._process.poll() is None

    def add(self, pid: int, label: str) -> bool:
        """End `pid` if we die; answers False when there is no such process now.

        Label `keep`: never end it. Label `keeper`: the keeper server, which ends by itself.
        """
        start_time = process_start_time(pid)
        if start_time is None:
            return False
        self._tell(f"add {pid} {start_time} {label}")
        return True

    def drop(self, pid: int) -> None:
        """`pid` is gone, or no longer ours to end."""
        self._tell(f"drop {pid}")

    def run(self, run_id: str) -> None:
        """Everything with NOVAWF_RUN_ID=`run_id` in its environment is ours."""
        self._tell(f"run {run_id}")

    def linger(self, argv: Sequence[str]) -> None:
        """Start `argv`, detached, after all else has ended, if we die."""
        self._tell("linger " + json.dumps(list(argv)))

    def done(self, timeout_s: float = 5.0) -> bool:
        """We stopped everything: end what is still alive from the list and go. Blocks briefly."""
        self._tell("done")
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _tell(self, line: str) -> None:
        if self._lifeline < 0:
            return
        with contextlib.suppress(*_LOST):
            os.write(self._lifeline, line.replace("\n", " ").encode() + b"\n")
