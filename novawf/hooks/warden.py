"""The warden: the forked half of the guard that runs a hook, watches over its tree, and ends it.

It is a subreaper: whatever the hook starts stays below it, however it detaches itself. The other
half (`guard`) is what the agent waits for; a socket joins the two. When that half dies before it
was told how the hook ended (SIGKILL, or the agent's own time-out), the warden ends the tree; when
the warden dies, that half does. After the hook's own end the warden stays behind, unseen, until
what the hook left in the background has ended too, at the latest at the time-out.

Told to the other half, once: ``{"status": n}``, ``{"failed": errno, "text"}`` when the command
could not be executed, or ``{"ended": kind, "reason"}``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
from time import monotonic  # noqa: TID251 - novawf.clock would cost 10 ms of imports

from novawf.hooks.calling import MESSAGE_BYTES, address
from novawf.hooks.looking import image_of, look
from novawf.hooks.watch import Sign, Watch
from novawf.processes.identity import process_start_time
from novawf.processes.tree import (
    PR_SET_NAME,
    PR_SET_PDEATHSIG,
    become_subreaper,
    is_descendant,
    prctl,
    signal_descendants,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

TIMEOUT = "timeout"
CUT = "cut"
"""The kinds of an end that shut nothing off: too slow, or the agent hung up."""

_GRACE_S = 0.5
"""Between SIGTERM and SIGKILL where the hook has done nothing wrong."""
_KILL_ROUNDS = 8
_KILL_AGAIN_MS = 10
_LOOKS = ((2.0, 0.004), (10.0, 0.02), (float("inf"), 0.1))
"""Until so many seconds after the start, so many seconds between looks: most hooks are short."""
_LOOK_SHARE = 4
"""A pause is at least so many times as long as the look before it took."""
_PEER = struct.Struct("3i")
_RESET_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)


class Warden:
    """One hook's run. The loop owns all of it."""

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        name: str,
        own: str,
        timeout_s: float,
        guard: socket.socket,
        on_sign: Callable[[Sign], None],
    ) -> None:
        self._argv = list(argv)
        self._env = dict(env)
        self._name = name
        self._own = own
        self._timeout_s = timeout_s
        self._guard: socket.socket | None = guard
        self._on_sign = on_sign
        self._pid = 0
        self._gone = False
        self._told = False
        self._asked = False

    def run(self) -> None:
        """From the start of the hook to the end of the last process of its tree."""
        wake = self._prepare()
        self._began = monotonic()
        exec_fd = self._start()
        _to_nowhere()
        self._watch = Watch(os.getpid(), self._own)
        self._image = image_of(os.getpid())
        poll = select.poll()
        for fd in (exec_fd, wake, self._listener.fileno(), self._fileno()):
            poll.register(fd, select.POLLIN)
        pause_s = 0.0
        while not self._gone:
            for fd, _ in poll.poll(pause_s * 1000):
                if fd == wake:
                    os.read(wake, 512)
                elif fd == exec_fd:
                    poll.unregister(exec_fd)
                    self._executed(exec_fd)
                elif fd == self._listener.fileno():
                    self._hear()
                else:
                    poll.unregister(fd)
                    self._hung_up()
            self._reap()
            if self._asked and not self._gone:
                self._end(Sign(CUT, "it was asked to end"))
            if not self._gone:
                pause_s = self._look()
            if monotonic() - self._began > self._timeout_s and not self._gone:
                self._end(Sign(TIMEOUT, f"it took longer than {self._timeout_s:g} s"))

    def _ask_to_end(self) -> None:
        """Signal handler: only notes it, the loop acts."""
        self._asked = True

    def _fileno(self) -> int:
        return -1 if self._guard is None else self._guard.fileno()

    # -- the command ------------------------------------------------------------------------------

    def _prepare(self) -> int:
        os.setsid()
        become_subreaper()
        prctl(PR_SET_NAME, b"novawf-hook")
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._ask_to_end())
        start_time = process_start_time(os.getpid()) or 0
        self._listener = socket.socket(
            socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
        self._listener.bind(address(os.getpid(), start_time))
        self._listener.listen(16)
        return wake_read

    def _start(self) -> int:
        """Fork the hook; answers the pipe that tells whether it could be executed."""
        exec_read, exec_write = os.pipe2(os.O_CLOEXEC)
        warden = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _become(self._argv, self._env, warden, exec_write)
        os.close(exec_write)
        return exec_read

    def _executed(self, exec_fd: int) -> None:
        """The exec pipe closed: empty means success, else it says what failed."""
        failure = os.read(exec_fd, 4096)
        os.close(exec_fd)
        if failure:
            self._tell({"failed": int(failure), "text": os.strerror(int(failure))})

    def _reap(self) -> None:
        """Collect the dead. ECHILD is the kernel's word that the tree is gone."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._gone = True
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._tell({"status": status})

    # -- signs ------------------------------------------------------------------------------------

    def _look(self) -> float:
        """One look at the tree; answers the pause until the next, in seconds."""
        began = monotonic()
        sign = self._watch.look(look(os.getpid(), self._watch, self._image))
        if sign is not None:
            self._end(sign)
            return 0.0
        now = monotonic()
        age_s = now - self._began
        pause_s = next(pause for until, pause in _LOOKS if age_s < until)
        pause_s = max(pause_s, (now - began) * _LOOK_SHARE)
        return max(0.001, min(pause_s, self._timeout_s - age_s + 0.001))

    def _hear(self) -> None:
        """Somebody in the tree has called: a stand-in for an agent, or a hook inside this one."""
        try:
            caller, _ = self._listener.accept()
        except OSError:
            return
        with caller:
            caller.settimeout(0.2)
            try:
                peer = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
                pid = _PEER.unpack(peer)[0]
                message = json.loads(caller.recv(MESSAGE_BYTES))
                if not is_descendant(pid, os.getpid()):
                    return
                if agent := message.get("started"):
                    self._end(Sign("agent", f"it started {agent}"))
                elif message.get("nested") == self._name:
                    self._end(Sign("recursion", "it came up again inside itself"))
                else:
                    caller.sendall(b".")
            except (OSError, ValueError, AttributeError):
                return

    def _hung_up(self) -> None:
        """The half that the agent sees has gone: was it told how the hook ended?"""
        self._guard = None
        if not self._told:
            self._told = True
            self._terminate()

    # -- the end ----------------------------------------------------------------------------------

    def _end(self, sign: Sign) -> None:
        """End the tree, for a reason; the harm first, then the book-keeping."""
        if sign.kind in (TIMEOUT, CUT):
            self._terminate()
        else:
            self._kill()
            self._on_sign(sign)
        self._tell({"ended": sign.kind, "reason": sign.reason})

    def _terminate(self) -> None:
        """SIGTERM, and SIGKILL to what is left after the grace."""
        signal_descendants(os.getpid(), signal.SIGTERM)
        signal_descendants(os.getpid(), signal.SIGCONT)  # the stopped can only die when they run
        deadline = monotonic() + _GRACE_S
        while monotonic() < deadline and not self._all_gone():
            select.poll().poll(_KILL_AGAIN_MS)
        self._kill()

    def _kill(self) -> None:
        """SIGKILL to all there are, again for those born meanwhile, until none is left."""
        for turn in range(10_000):
            signal_descendants(os.getpid(), signal.SIGKILL)
            if self._all_gone():
                return
            if turn >= _KILL_ROUNDS:
                select.poll().poll(_KILL_AGAIN_MS)

    def _all_gone(self) -> bool:
        """Collect the dead; answers whether none is left. How they ended is no news any more."""
        while not self._gone:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return False
            except ChildProcessError:
                self._gone = True
        return True

    def _tell(self, message: dict[str, object]) -> None:
        if self._told or self._guard is None:
            return
        self._told = True
        with contextlib.suppress(OSError):
            self._guard.sendall(json.dumps(message).encode())
            self._guard.shutdown(socket.SHUT_WR)


def _become(argv: Sequence[str], env: Mapping[str, str], warden: int, exec_fd: int) -> NoReturn:
    """In the forked child: become the hook, or say on `exec_fd` what stood in the way."""
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != warden:  # it died before we could ask to follow it
            os._exit(127)
        signal.set_wakeup_fd(-1)
        for signum in (*_RESET_SIGNALS, signal.SIGHUP):
            signal.signal(signum, signal.SIG_DFL)
        os.execvpe(argv[0], list(argv), dict(env))  # noqa: S606 - what we are for
    except OSError as error:
        os.write(exec_fd, str(error.errno or errno.EIO).encode())
    except ValueError:  # a NUL byte in an argument
        os.write(exec_fd, str(errno.EINVAL).encode())
    finally:
        os._exit(127)


def _to_nowhere() -> None:
    """Let go of the agent's pipes: it waits until the last holder has closed them."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
