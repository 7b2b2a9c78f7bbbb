"""The fork server: imports Ray and our code once, then forks one worker of Ray per request.

A worker that Ray starts imports Ray twice (its `setup_worker.py` and its `default_worker.py` are
a process image each): 1.3 s of processor time, of which a fork leaves a tenth. Run by `prefork`
through `novawf/processes/boot.py` with the arguments LISTENER_FD LIFELINE_FD AHEAD MODULES PATH: a
listening unix socket, a pipe whose end means that the supervisor is gone, modules to import
(separated by commas) and Python's search path (JSON). AHEAD is imported at once; Ray, and MODULES
that import it, wait for the first request: Ray reads its configuration from the environment when
it is imported, once, and only a worker's environment has all of it.

The protocol, one connection a worker: `fork_launcher` sends a newline with the three standard
streams, then a JSON object (argv, env, cwd, blocked, oom_score_adj) up to the end of its side. The
worker itself answers one byte before it becomes Ray's: an end without that means that there is
none, and none will come. A server whose first workers fail, not one having met its raylet, is of no
use with this Ray: it ends with `UNFIT`, and Ray's own way is left.

Only `_exit` ends a forked worker, so nothing of the server's own is undone there.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import monotonic  # noqa: TID251 - before anything of ours is imported
from typing import Any, NoReturn

from novawf.processes.tree import PR_SET_NAME, prctl
from novawf.store import scripts

REQUEST_S = 5.0
"""A launcher has sent all it has to say by then."""
EARLY_S = 10.0
"""A worker that has lived so long has met its raylet."""
FAILED = 97
"""Exit code of a worker whose script raised; Ray's own are 0 and 1."""
FAILURES = 2
"""So many, and none that lived long: workers do not come of this process."""
UNFIT = 3
"""Exit code: workers do not come of this process."""
RAYLET_PID = "RAY_RAYLET_PID"
JOB_ID = "RAY_JOB_ID"
NIL_JOB = "ffffffff"
"""As the raylet itself names the job of a worker that it starts ahead of any job."""
_FAILURES = {FAILED, -signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS}
"""Exit codes; a failed check of Ray's native part aborts."""
RAY_MODULES = (
    "ray",
    "ray.actor",
    "ray._private.node",
    "ray._private.worker",
    "ray._private.utils",
    "ray._private.ray_logging",
    "ray._private.async_compat",
    "ray._private.runtime_env.setup_hook",
)


class ForkServer:
    """Serves one raylet."""

    def __init__(self, listener: socket.socket, lifeline: int, modules: Sequence[str]) -> None:
        self._listener = listener
        self._lifeline = lifeline
        self._modules = modules
        self._raylet = ""
        """Whose workers it forks."""
        self._woken, self._wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        """For signals."""
        self._young: dict[int, float] = {}
        """Child → when it was forked, monotonic s."""
        self._failures: int | None = 0
        """Children that ended early, until one does not."""

    def serve(self) -> int:
        """Until the lifeline ends; answers the exit code."""
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()  # no descriptor of its own that a child would inherit
        for descriptor in (self._listener.fileno(), self._lifeline, self._woken):
            poll.register(descriptor, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._lifeline in ready:
                return 0
            if self._woken in ready:
                os.read(self._woken, 1 << 10)
                self._bury()
                if self._failures is not None and self._failures >= FAILURES:
                    return UNFIT
            if self._listener.fileno() in ready:
                self._accept()

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            born_s = self._young.pop(pid, 0.0)
            if self._failures is None:
                continue
            if monotonic() - born_s >= EARLY_S:
                self._failures = None
                self._young.clear()
            elif os.waitstatus_to_exitcode(status) in _FAILURES:
                self._failures += 1

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            streams: list[int] = []
            try:
                connection.settimeout(REQUEST_S)
                request = _read(connection, streams)
                if self._serves(request["env"]):
                    self._fork(connection, streams, request)
            except (OSError, ValueError, KeyError, TypeError) as error:
                sys.stderr.write(f"fork server: {error!r}\n")
            finally:
                for stream in streams:
                    os.close(stream)

    def _serves(self, env: dict[str, str]) -> bool:
        """Whether a worker with this environment can come of this process."""
        raylet = env[RAYLET_PID]
        if not self._raylet:
            # Ray's configuration is read from the environment at import, once.
            os.environ.update(  # noqa: TID251
                {name: value for name, value in env.items() if name.startswith("RAY_")}
            )
            os.environ[JOB_ID] = NIL_JOB  # noqa: TID251
            _import((*RAY_MODULES, *self._modules))
            scripts.read_all()
            gc.collect()
            gc.freeze()  # else the first collection in each child would copy every page
            self._raylet = raylet
        return raylet == self._raylet and len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208

    def _fork(self, connection: socket.socket, streams: list[int], request: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                connection.setblocking(True)
                signal.set_wakeup_fd(-1)
                self._listener.close()
                for descriptor in (self._lifeline, self._woken, self._wakes):
                    os.close(descriptor)
                _become(connection, streams, request)
            except BaseException:
                traceback.print_exc()
            os._exit(FAILED)
        if self._failures is not None:
            now_s = monotonic()
            self._young[pid] = now_s
            if any(now_s - born_s >= EARLY_S for born_s in self._young.values()):
                self._failures = None
                self._young.clear()


def _read(connection: socket.socket, streams: list[int]) -> dict[str, Any]:
    """One request; its descriptors are added to `streams`."""
    first, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    streams += descriptors
    if not first or len(descriptors) != 3:
        raise ValueError("a request without its standard streams")
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    request: dict[str, Any] = json.loads(b"".join(parts))
    return request


def _become(connection: socket.socket, streams: list[int], request: dict[str, Any]) -> NoReturn:
    """Be the worker that the launcher would have become."""
    os.setpgid(0, 0)  # the raylet signals a worker's whole group
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    for stream in streams:
        os.close(stream)
    os.environ.clear()  # noqa: TID251
    os.environ.update(request["env"])  # noqa: TID251
    os.chdir(request["cwd"])
    if request["oom_score_adj"]:
        Path("/proc/self/oom_score_adj").write_text(request["oom_score_adj"])
    sys.argv = list(request["argv"])
    connection.sendall(b".")
    connection.close()
    code: object = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        code = ended.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _import(names: Sequence[str]) -> None:
    """Import what can be; a worker imports the rest by itself, and says what is wrong with it."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            sys.stderr.write(f"fork server: {name} is not imported ahead: {error!r}\n")


def main(args: list[str]) -> int:
    """Serve; see the module. Returns at the end of the lifeline."""
    listener_fd, lifeline, ahead, modules, path = args
    prctl(PR_SET_NAME, b"novawf-fork")
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides when it ends
    sys.path[:] = json.loads(path)
    for descriptor in (listener_fd, lifeline):
        os.set_inheritable(int(descriptor), False)
    _import(ahead.split(","))
    listener = socket.socket(fileno=int(listener_fd))
    listener.setblocking(False)
    return ForkServer(listener, int(lifeline), modules.split(",")).serve()
