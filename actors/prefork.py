"""The supervisor's side of the fork server: started before Ray, kept alive, ended with it.

Ray names the script that starts its workers by a constant of its own; for the time of `ray.init`
that is `fork_launcher`. Where Ray has no such constant any more, and where the server does not stay
up, workers start in Ray's own way: slower, and just as well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ray._private import ray_constants

from actors import fork_launcher
from actors.forkserver import UNFIT
from novawf.clock import monotonic_s
from novawf.processes.keeper import BOOT, SOCKET_PATH_BYTES

log = logging.getLogger("novawf.actors")

SCRIPT = "SETUP_WORKER_FILENAME"
AHEAD = (
    "novawf.workflow.nova",
    "novawf.limits.rate_limiter",
    "novawf.safety.orchestrator",
    "novawf.streams.assembly",
    "novawf.fleet_metrics",
    "uvloop",
)
"""What needs most of the time to import, without Ray."""
PRELOADED = ("actors.nova", "actors.limiter", "actors.safety", "actors.metrics", "actors.streams")
"""What the actors of a fleet import."""
BACKLOG = 128
TRIES = 5
"""So many servers may die, each within `STEADY_S`, before the fleet goes on without one."""
STEADY_S = 60.0


class Prefork:
    """One fork server at a time, on one socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1
        self._env: dict[str, str] = {}
        self._starts = 0
        self._started_s = 0.0

    def start(self, env: Mapping[str, str]) -> bool:
        """Start it with this environment; False where Ray would not use it, or it cannot be."""
        if not hasattr(ray_constants, SCRIPT) or len(os.fsencode(self.path)) > SOCKET_PATH_BYTES:
            return False
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._env = dict(env)
            self._start()
        except OSError as error:
            log.warning("workers start in Ray's own way, no fork server: %s", error)
            self.stop()
            return False
        return True

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """While Ray starts: its raylet is told of the launcher."""
        before = getattr(ray_constants, SCRIPT)
        setattr(ray_constants, SCRIPT, fork_launcher.__file__)
        try:
            yield
        finally:
            setattr(ray_constants, SCRIPT, before)

    @property
    def pid(self) -> int | None:
        """Of the server; None where there is none."""
        return self._process.pid if self._process is not None else None

    def tend(self) -> bool:
        """Start another one if it died; workers meanwhile start without. Answers whether it did."""
        if self._process is None or self._process.poll() is None:
            return False
        if monotonic_s() - self._started_s > STEADY_S:
            self._starts = 0
        if self._starts >= TRIES or self._process.returncode == UNFIT:
            log.warning("the fork server does not stay up: workers start in Ray's own way")
            self.stop()
            return False
        self._start()
        return True

    def renew(self) -> None:
        """Another one, which imports the code as it is now on disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._starts = 0
            try:
                self._start()
            except OSError as error:
                log.warning("the fork server is started again soon: %s", error)

    def stop(self) -> None:
        """End it. Its workers are Ray's, and live on. A repeat does nothing."""
        self.path.unlink(missing_ok=True)
        self._cut()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _cut(self) -> None:
        lifeline, self._lifeline = self._lifeline, -1  # by then another's number, if this fails
        if lifeline >= 0:
            os.close(lifeline)

    def _start(self) -> None:
        self._starts += 1
        self._started_s = monotonic_s()
        self.path.unlink(missing_ok=True)
        self._cut()
        read, self._lifeline = os.pipe2(os.O_CLOEXEC)
        # Only the server has the socket: when it dies, nobody waits for it.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            try:
                listener.bind(str(self.path))
                listener.listen(BACKLOG)
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        *(str(BOOT), "actors.forkserver", str(listener.fileno()), str(read)),
                        *(",".join(AHEAD), ",".join(PRELOADED), json.dumps(sys.path)),
                    ],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(listener.fileno(), read),
                    env=self._env,
                    process_group=0,
                )
            finally:
                os.close(read)
