"""The keeper server: a small warm process that forks keepers, so that a spawn costs no start-up.

Run by the supervisor, outside Ray, through `boot.py` with SOCKET and LIFELINE_FD. One connection
carries one request, as a frame (`wire`):

* ``{"op": "spawn", …}`` with descriptors by SCM_RIGHTS: a keeper takes the connection over
  (`keeping`). Refused: ``{"refused": why}``.
* ``{"op": "drain", "stamp": s}``: answers ``{"drained": s}`` once no keeper under that stamp is
  left, nor anything a killed keeper left behind. A drained stamp is retired: later spawns under
  it are refused, since its owner is dead and they could only be late.
* ``{"op": "list"}``: answers ``{"keepers": [{"pid", "stamp", "label", "age_s"}]}``.

At EOF of the lifeline (the supervisor died) or SIGTERM it has its keepers end their trees, then
exits. Each keeper holds the server's lock file open: the next server waits until all of them are
gone, so a drain never overlooks one. One poll loop, nothing blocks, a broken client costs its own
connection only.

Keepers are forked ahead, while nothing waits, and their commands' processes with them: a start is
handed over and has no fork in its way.
"""

from __future__ import annotations

# Runs in bare interpreters, where pathlib would cost 1 MB.
# ruff: noqa: PTH108, PTH110
import fcntl
import gc
import os
import select
import signal
import socket
import sys
import time

# Fleet time is of no use here, and novawf.clock would cost each keeper 2 MB of imports.
from time import monotonic  # noqa: TID251

from novawf.processes.ahead import KeepersAhead, StartError
from novawf.processes.handing import MAX_FDS, received, rehearse
from novawf.processes.tree import (
    PR_SET_NAME,
    become_subreaper,
    children,
    prctl,
    signal_descendants,
)
from novawf.processes.wire import Decoder, FrameError, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

REHEARSALS = 20
"""At the start: code that ran often is specialised by the interpreter, once for all forks."""
MAX_CONNECTIONS = 512
REQUEST_WITHIN_S = 10.0
RETIRED_KEPT = 4096
LOCK_WITHIN_S = 8.0
SWEEP_AGAIN_S = 0.01


class _Connection:
    """A client whose request is not complete yet, or who waits for a drain."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = Decoder()
        self.fds: list[int] = []
        self.draining: str | None = None
        self.ending: set[int] | None = None  # only these keepers are waited for
        self.until = monotonic() + REQUEST_WITHIN_S

    def close(self) -> None:
        """Drop the client and the descriptors it sent."""
        for fd in self.fds:
            os.close(fd)
        self.fds = []
        self.sock.close()


class _Keeper:
    """What the server knows of a keeper it forked."""

    def __init__(self, stamp: str, label: str) -> None:
        self.stamp = stamp
        self.label = label
        self.since = monotonic()


class KeeperServer:
    """Accepts requests, hands them to keepers, reaps those, answers drains."""

    def __init__(self, listener: socket.socket, lifeline_fd: int, lock_fd: int) -> None:
        self._listener = listener
        self._lifeline_fd = lifeline_fd
        self._wake_fd = -1
        self._poll = select.poll()
        self._connections: dict[int, _Connection] = {}
        self._keepers: dict[int, _Keeper] = {}
        self._ahead = KeepersAhead(self._poll, lock_fd)
        self._swept: set[str] = set()  # stamps whose keeper was killed: its orphans are ours now
        self._retired: dict[str, None] = {}
        self._closing = False
        self._asked_to_close = False

    def serve(self) -> None:
        """Until the lifeline is cut or SIGTERM, and no keeper is left."""
        self._wake_fd, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._note_sigterm())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for fd in (self._listener.fileno(), self._lifeline_fd, self._wake_fd):
            self._poll.register(fd, select.POLLIN)
        while not (self._closing and not self._ours() and not self._swept):
            events = self._poll.poll(self._wait_ms())
            for fd, _ in events:
                if fd == self._wake_fd:
                    os.read(self._wake_fd, 512)
                elif fd == self._lifeline_fd:
                    self._look_at_lifeline()
                elif fd == self._listener.fileno():
                    self._accept()
                elif fd in self._connections:
                    self._receive(self._connections[fd])
                else:
                    self._ahead.look(fd)
            if self._asked_to_close and not self._closing:
                self._close()
            self._reap()
            if self._swept:
                self._sweep()
            self._answer_drains()
            self._drop_late(monotonic())
            due_at = self._ahead.due_at()
            if not events and due_at is not None and monotonic() >= due_at:
                self._ahead.prepare()

    def _note_sigterm(self) -> None:
        self._asked_to_close = True

    def _close(self) -> None:
        """No new work; every keeper ends its tree."""
        self._closing = True
        self._ahead.close()
        for pid in list(self._keepers):
            os.kill(pid, signal.SIGTERM)  # our own unreaped child: the pid is its

    def _look_at_lifeline(self) -> None:
        if not os.read(self._lifeline_fd, 512):
            self._poll.unregister(self._lifeline_fd)
            self._close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                time.sleep(0.01)  # out of descriptors: let the present ones end
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                sock.close()
                continue
            sock.setblocking(False)
            self._connections[sock.fileno()] = _Connection(sock)
            self._poll.register(sock, select.POLLIN)
            self._receive(self._connections[sock.fileno()])  # usually it is there already

    def _forget(self, connection: _Connection) -> None:
        del self._connections[connection.sock.fileno()]
        self._poll.unregister(connection.sock)

    def _drop(self, connection: _Connection, answer: dict[str, Any] | None = None) -> None:
        self._forget(connection)
        if answer is not None:
            try:  # noqa: SIM105 - contextlib costs memory here
                connection.sock.send(encode(answer), socket.MSG_NOSIGNAL)
            except OSError:
                pass  # it is gone, or does not read: its own loss
        connection.close()

    def _receive(self, connection: _Connection) -> None:
        room = socket.CMSG_SPACE(MAX_FDS * 4)
        try:
            data, ancillary, flags, _ = connection.sock.recvmsg(
                1 << 16, room, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)
            return
        connection.fds += received(ancillary)
        if not data or flags & socket.MSG_CTRUNC or len(connection.fds) > MAX_FDS:
            self._drop(connection)
            return
        try:
            messages = connection.decoder.feed(data)
        except FrameError as error:
            self._drop(connection, {"refused": str(error)})
            return
        if messages and connection.draining is None:
            self._obey(connection, messages[0], messages[1:])

    def _obey(
        self, connection: _Connection, request: dict[str, Any], early: list[dict[str, Any]]
    ) -> None:
        match request:
            case {"op": "spawn", "stamp": str(), "argv": [str(), *_]}:
                self._spawn(connection, request, early)
            case {"op": "drain", "stamp": str(stamp)}:
                self._retired[stamp] = None
                if len(self._retired) > RETIRED_KEPT:
                    del self._retired[next(iter(self._retired))]
                connection.draining = stamp
            case {"op": "end", "stamp": str(stamp)}:
                connection.ending = {p for p, k in self._keepers.items() if k.stamp == stamp}
                connection.draining = stamp
                for pid in connection.ending:
                    os.kill(pid, signal.SIGTERM)  # our child, not reaped yet: surely this one
            case {"op": "list"}:
                now = monotonic()
                keepers = [
                    {"pid": pid, "stamp": k.stamp, "label": k.label, "age_s": now - k.since}
                    for pid, k in self._keepers.items()
                ]
                self._drop(connection, {"keepers": keepers})
            case _:
                self._drop(connection, {"refused": f"unknown request {request.get('op')!r}"})

    def _spawn(
        self, connection: _Connection, order: dict[str, Any], early: list[dict[str, Any]]
    ) -> None:
        stamp = order["stamp"]
        if self._closing or stamp in self._retired:
            why = "the keeper server is closing" if self._closing else f"{stamp} is retired"
            self._drop(connection, {"refused": why})
            return
        rest = connection.decoder.leftover()
        control_fd = connection.sock.fileno()
        try:
            pid = self._ahead.hand_over(order, connection.fds, control_fd, early, rest)
        except StartError as error:
            self._drop(connection, {"refused": str(error)})
            return
        self._keepers[pid] = _Keeper(stamp, str(order.get("label", "")))
        self._drop(connection)

    def _ours(self) -> set[int]:
        """All keepers there are."""
        return {*self._keepers, *self._ahead.pids()}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._swept.clear()  # no child of any kind is left
                return
            if pid == 0:
                return
            self._ahead.buried(pid)
            keeper = self._keepers.pop(pid, None)
            if keeper is not None and status != 0:
                self._swept.add(keeper.stamp)

    def _sweep(self) -> None:
        """End the orphans of killed keepers; we are their subreaper.

        What counts as one: any descendant that is not below a living keeper.
        """
        ours = self._ours()
        strays = [pid for pid in children(os.getpid()) if pid not in ours]
        if not strays:
            self._swept.clear()
            return
        signal_descendants(os.getpid(), signal.SIGKILL, skip=ours)

    def _answer_drains(self) -> None:
        waiting = [c for c in self._connections.values() if c.draining is not None]
        if not waiting:
            return
        busy = {keeper.stamp for keeper in self._keepers.values()} | self._swept
        for connection in waiting:
            if connection.ending is None:
                gone = connection.draining not in busy
            else:
                gone = connection.draining not in self._swept and connection.ending.isdisjoint(
                    self._keepers
                )
            if gone:
                self._drop(connection, {"drained": connection.draining})

    def _drop_late(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if connection.draining is None and now > connection.until:
                self._drop(connection)

    def _wait_ms(self) -> float | None:
        if self._swept:
            return SWEEP_AGAIN_S * 1000
        times = [c.until for c in self._connections.values() if c.draining is None]
        due_at = self._ahead.due_at()
        if due_at is not None:
            times.append(due_at)
        return max(0.0, min(times) - monotonic()) * 1000 + 1 if times else None


def _take_lock(path: str) -> int:
    """The lock of this socket's one server; waits for the keepers of an earlier one."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise
            time.sleep(0.005)
        else:
            return fd


def main(args: list[str]) -> int:
    """SOCKET LIFELINE_FD. Says `ready` on stdout when the socket listens."""
    path, lifeline_fd = args[0], int(args[1])
    os.set_inheritable(lifeline_fd, False)
    try:
        lock_fd = _take_lock(path + ".lock")
    except BlockingIOError:
        print(f"another keeper server, or a keeper of one, holds {path}.lock", flush=True)  # noqa: T201
        return 1
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup on the supervisor is not for commands
    become_subreaper()
    prctl(PR_SET_NAME, b"novawf-keepers")
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    listener.bind(path)
    os.umask(before)
    listener.listen(128)
    os.write(1, b"ready\n")
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for _ in range(REHEARSALS):
        rehearse()
    gc.freeze()  # what is here now stays shared with every keeper
    KeeperServer(listener, lifeline_fd, lock_fd).serve()
    os.unlink(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
