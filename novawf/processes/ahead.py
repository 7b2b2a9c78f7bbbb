"""Keepers forked ahead: a start is handed over to one that waits, and has no fork in its way.

The keeper server's side. Below each keeper (`keeping`) waits the process that will be its command
(`becoming`), and each has a channel of its own. The command's part of an order goes first: it is
what somebody waits for. Whoever is killed meanwhile:

* the command's process before its order was sent: nothing has begun, the next one takes it;
* after that: it counts as the command's end by that signal;
* the keeper: its client sees the connection close, what has begun ends with it, and the server
  ends what that leaves behind.

Not here: who may start what, and who is told of an end (`keeper_server`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

# Fleet time is of no use here, and novawf.clock would cost each keeper 2 MB of imports.
from time import monotonic  # noqa: TID251

from novawf.processes.handing import hand, rehearse
from novawf.processes.keeping import keep
from novawf.processes.tree import PR_SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

AHEAD = 2
"""Keepers that wait: two starts at once find one each; a third waits for a fork."""
PREPARE_AFTER_S = 0.005
"""So long after a start nothing is forked: the command is to have the processor first."""
PREPARE_AGAIN_S = 1.0
"""So long after one that waited was killed, or a fork failed."""
SERVER_SIGNALS = (signal.SIGCHLD, signal.SIGTERM)
_OF_THE_COMMAND = ("argv", "env", "stamp", "cwd", "rlimits", "start_by_s")


class StartError(Exception):
    """No keeper took the order; nothing has begun."""


class _Waiting:
    """A keeper without an order."""

    def __init__(self, pid: int, to_keeper: socket.socket, to_command: socket.socket) -> None:
        self.pid = pid
        self.to_keeper = to_keeper
        self.to_command = to_command


class KeepersAhead:
    """Forks keepers and hands orders over. It never waits for them."""

    def __init__(self, poll: select.poll, lock_fd: int) -> None:
        self._poll = poll
        self._lock_fd = lock_fd
        self._waiting: dict[int, _Waiting] = {}
        self._leaving: set[int] = set()  # they got no order and end by themselves
        self._closed = False
        self._prepare_at = 0.0

    def pids(self) -> set[int]:
        """All that have no order."""
        return {*self._waiting, *self._leaving}

    def due_at(self) -> float | None:
        """When `prepare` may be called next, monotonic s; None when enough of them wait."""
        return None if self._closed or len(self._waiting) >= AHEAD else self._prepare_at

    def prepare(self) -> None:
        """Fork one. Where that fails a start will say so; not here."""
        try:
            self._fork()
        except OSError:
            self._prepare_at = monotonic() + PREPARE_AGAIN_S
        rehearse()

    def hand_over(
        self,
        order: dict[str, Any],
        fds: list[int],
        control_fd: int,
        early: list[dict[str, Any]],
        rest: bytes,
    ) -> int:
        """Start `order`; answers its keeper's pid. Raises StartError.

        `early` and `rest` came behind it on the connection `control_fd`, as messages and as a part
        of one.
        """
        for_command = {name: order.get(name) for name in _OF_THE_COMMAND}
        if any(message.get("op") == "kill" for message in early):
            for_command["start_by_s"] = 0.0  # called off: the last look before the exec finds that
        keeper = self._begin(for_command, fds)
        self._prepare_at = monotonic() + PREPARE_AFTER_S
        for_keeper = {name: value for name, value in order.items() if name not in _OF_THE_COMMAND}
        for_keeper |= {"at": monotonic(), "early": early, "rest": rest.decode("latin-1")}
        hand(keeper.to_keeper, for_keeper, [control_fd])  # in vain to one that was just killed
        self._let_go(keeper)
        return keeper.pid

    def _begin(self, for_command: dict[str, Any], fds: list[int]) -> _Waiting:
        while True:
            fresh = not self._waiting
            try:
                keeper = self._fork() if fresh else next(iter(self._waiting.values()))
            except OSError as error:
                raise StartError(f"cannot fork: {error.strerror}") from None
            if hand(keeper.to_command, for_command, fds):
                return keeper
            self._dismiss(keeper)
            if fresh:
                raise StartError("its order could not be handed over")

    def look(self, fd: int) -> None:
        """`fd` has an event: when it is one of our channels, the command's process is gone."""
        for keeper in list(self._waiting.values()):
            if fd == keeper.to_command.fileno():
                self._dismiss(keeper)
                self._prepare_at = monotonic() + PREPARE_AGAIN_S

    def buried(self, pid: int) -> None:
        """`pid` was reaped. With a keeper its command's process dies."""
        self._leaving.discard(pid)
        if pid in self._waiting:
            self._let_go(self._waiting[pid])
            self._prepare_at = monotonic() + PREPARE_AGAIN_S

    def close(self) -> None:
        """No more of them; those that wait leave."""
        self._closed = True
        for keeper in list(self._waiting.values()):
            self._dismiss(keeper)

    def _dismiss(self, keeper: _Waiting) -> None:
        self._let_go(keeper)
        self._leaving.add(keeper.pid)

    def _let_go(self, keeper: _Waiting) -> None:
        del self._waiting[keeper.pid]
        self._poll.unregister(keeper.to_command)
        keeper.to_keeper.close()
        keeper.to_command.close()

    def _fork(self) -> _Waiting:
        """Raises OSError."""
        to_keeper, orders = socket.socketpair()
        to_command, commands = socket.socketpair()
        server = os.getpid()
        # Blocked until the keeper has its own handlers: a signal must not meet the server's.
        signal.pthread_sigmask(signal.SIG_BLOCK, SERVER_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                _become_keeper(server, orders, commands, self._lock_fd)
        except OSError:
            to_keeper.close()
            to_command.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SERVER_SIGNALS)
            orders.close()
            commands.close()
        keeper = self._waiting[pid] = _Waiting(pid, to_keeper, to_command)
        self._poll.register(to_command, 0)  # tells of its end alone
        return keeper


def _become_keeper(
    server: int, orders: socket.socket, commands: socket.socket, lock_fd: int
) -> NoReturn:
    """In the forked child: leave the server behind and wait for an order. Never returns."""
    code = 70
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # without its server a keeper cannot be drained
        if os.getppid() != server:
            os._exit(70)
        _close_all_but({0, 1, 2, lock_fd, orders.fileno(), commands.fileno()})
        keep(orders, commands)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    low = 0
    for fd in sorted(kept):
        if low < fd:  # CPython turns the empty range (0, 0) into "all there are"
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))
