"""The fork server: imports Ray and our code once, then forks one worker of Ray per request.

A worker that Ray starts imports Ray twice (its `setup_worker.py` and its `default_worker.py` are
a process image each): 1.3 s of processor time, of which a fork leaves a tenth. Run by `prefork`
through `novawf/processes/boot.py` with the arguments LISTENER_FD LIFELINE_FD AHEAD MODULES PATH: a
listening unix socket, a pipe whose end means that the supervisor is gone, modules to import
(separated by commas) and Python's search path (JSON). AHEAD is imported at once; Ray, and MODULES
that import it, wait for the first request: Ray reads its configuration from the environment when
it is imported, once, and only a worker's environment has all of it.

The protocol, one connection a worker: `fork_launcher` sends a newline with the three standard
streams, then a JSON object (argv, env, cwd, blocked, files, oom_score_adj) up to the end of its
side. The worker itself answers one byte before it becomes Ray's: an end without that means that
there is none, and none will come. A server whose first workers fail, not one having met its raylet,
is of no use with this Ray: it ends with `UNFIT`, and Ray's own way is left.

Only `_exit` ends a forked worker, so nothing of the server's own is undone there.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
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
REGISTER_S = 120.0
"""A worker that has not become Ray's by then hangs: twice what the raylet waits for it, which knows
the launcher alone."""
LOOK_S = 10.0
EARLY_S = 10.0
"""A worker that has lived so long has met its raylet."""
FAILED = 97
"""Exit code of a worker whose script raised; Ray's own are 0 and 1."""
NOT_BEGUN = 96
"""Exit code of one that could not become a worker: its launcher goes Ray's own way."""
FAILURES = 2
"""So many, and none that lived long: workers do not come of this process."""
UNFIT = 3
"""Exit code: workers do not come of this process."""
NAME = b"novawf-fork"
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


class _UnfitError(Exception):
    """No worker can come of this process."""


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
        """Children that are not known to be Ray's → when they were forked, monotonic s."""
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
            ready = {
                descriptor for descriptor, _ in poll.poll(LOOK_S * 1000 if self._young else None)
            }
            self._look_after_young(now=self._lifeline in ready)
            if self._lifeline in ready:
                return 0
            if self._woken in ready:
                os.read(self._woken, 1 << 10)
                self._bury()
                if self._failures is not None and self._failures >= FAILURES:
                    return UNFIT
            if self._listener.fileno() in ready:
                try:
                    self._accept()
                except _UnfitError as why:
                    sys.stderr.write(f"fork server: {why}: workers start in Ray's own way\n")
                    return UNFIT

    def _look_after_young(self, *, now: bool) -> None:
        """Forget those that became Ray's, which names them; end those that do not, or all `now`."""
        now_s = monotonic()
        for pid, born_s in list(self._young.items()):
            try:
                is_ours = Path(f"/proc/{pid}/comm").read_bytes().strip() == NAME
            except OSError:
                is_ours = False
            if is_ours and (now or now_s - born_s >= REGISTER_S):
                os.kill(pid, signal.SIGKILL)
            elif not is_ours and now_s - born_s >= EARLY_S:
                del self._young[pid]
                self._failures = None

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
        if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208
            raise _UnfitError("something that was imported has started a thread")
        return raylet == self._raylet

    def _fork(self, connection: socket.socket, streams: list[int], request: dict[str, Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            code = NOT_BEGUN
            try:
                connection.setblocking(True)
                signal.set_wakeup_fd(-1)
                self._listener.close()
                for descriptor in (self._lifeline, self._woken, self._wakes):
                    os.close(descriptor)
                _become(streams, request)
                connection.sendall(b".")
                connection.close()
                code = FAILED
                _work()
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        self._young[pid] = monotonic()


def _read(connection: socket.socket, streams: list[int]) -> dict[str, Any]:
    """One request; its descriptors are added to `streams`."""
    first, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    streams += descriptors
    if not first or len(descriptors) != 3:
        raise ValueError("a request without its standard streams")
    parts, until_s = [], monotonic() + REQUEST_S
    while part := connection.recv(1 << 16):
        parts.append(part)
        connection.settimeout(max(0.001, until_s - monotonic()))
    request: dict[str, Any] = json.loads(b"".join(parts))
    return request


def _become(streams: list[int], request: dict[str, Any]) -> None:
    """Be what the launcher is."""
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
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(request["files"]))
    sys.argv = list(request["argv"])


def _work() -> NoReturn:
    """Be the worker that the launcher would have become."""
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
    prctl(PR_SET_NAME, NAME)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides when it ends
    sys.path[:] = json.loads(path)
    for descriptor in (listener_fd, lifeline):
        os.set_inheritable(int(descriptor), False)
    _import(ahead.split(","))
    listener = socket.socket(fileno=int(listener_fd))
    listener.setblocking(False)
    return ForkServer(listener, int(lifeline), modules.split(",")).serve()
