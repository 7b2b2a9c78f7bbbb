"""The keeper: one small process that runs one command and ends all that came of it.

Forked ahead by the keeper server (`keeper_server`); `keep` waits for one spawn order and takes over
the connection to the client (a Nova). It is a subreaper: whatever the command starts stays below
it, daemonised or not. It leaves only when the kernel confirms that no descendant is left.

The connection is the lifeline: EOF on it (the Nova died) or SIGTERM (the server died or said so)
ends the whole tree at once. Reports to the client, as frames (`wire`)::

    {"started": pid}              the command was executed
    {"output_bytes": n}           evidence of life, at most once a second
    {"reason", "exit", "signal", "output_bytes", "tail", "duration_s", "error"}      the end

Orders from the client: ``{"op": "kill", "grace_s": s}``, and ``{"op": "hold", "s": s}``, which sets
anew how long from now an order with ``hold_s`` may go on; then it is ended at once, as `unheld`.
Not here: who may run what, and when.
"""

from __future__ import annotations

import os
import select
import signal
import socket

# Fleet time is of no use here, and novawf.clock would cost each keeper 2 MB of imports.
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, sleep  # noqa: TID251

from novawf.processes.becoming import LATE, become_command
from novawf.processes.handing import rehearse, take
from novawf.processes.output import BoundedLog
from novawf.processes.tree import (
    PR_SET_NAME,
    become_subreaper,
    prctl,
    signal_descendants,
)
from novawf.processes.wire import Decoder, FrameError, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 1 << 16
DRAIN_BYTES = 4 << 20  # after the tree is gone: a stranger who holds the pipe cannot keep us
REPORT_EVERY_S = 1.0
HOLD_LOOK_MS = 1000
KILL_ROUNDS = 8  # at once, to outrun what forks while it dies; then every KILL_AGAIN_S
KILL_AGAIN_S = 0.01
KILL_AGAIN_MAX_S = 0.2  # a process in uninterruptible sleep takes its time; do not spin for it

# Stages of a run, in order; none is ever left backwards.
RUNNING, INTERRUPTED, TERMINATING, KILLING = range(4)


def keep(orders: socket.socket, commands: socket.socket) -> None:
    """Take one order from the keeper server and run it to its end.

    Returns when the tree is gone and the report is delivered, or when there was no order. The
    command's process is forked first and gets its own part of the order by `commands`, before we
    get ours: by then the command may have begun, or ended.
    """
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked: list[int] = []  # signals that came
    signal.signal(signal.SIGTERM, lambda signum, _: asked.append(signum))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    become_subreaper()
    prctl(PR_SET_NAME, b"novawf-waiting")
    command = _fork(commands)
    rehearse()
    given = _wait_for_order(orders, wake_read, asked)
    orders.close()
    if given is None:
        _end_all()
        return
    prctl(PR_SET_NAME, b"novawf-keeper")
    order, (control_fd, *_) = given
    os.set_inheritable(control_fd, False)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, control_fd)
    run = _Run(control, order, command, wake_read, asked)
    run.obey(order["early"])
    run.loop()
    run.finish()


class _Command:
    """The process that is or becomes the command, and our ends of its two pipes."""

    def __init__(self, pid: int, output_fd: int, exec_fd: int) -> None:
        self.pid = pid
        self.output_fd = output_fd
        self.exec_fd = exec_fd


def _fork(commands: socket.socket) -> _Command:
    """Fork the command's process; whether it could be executed shows on the exec pipe."""
    output_fd, output_write = os.pipe2(os.O_CLOEXEC)
    exec_fd, exec_write = os.pipe2(os.O_CLOEXEC)
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        become_command(keeper, commands.fileno(), output_write, exec_write)
    os.close(output_write)
    os.close(exec_write)
    commands.close()
    os.set_blocking(output_fd, False)
    return _Command(pid, output_fd, exec_fd)


def _wait_for_order(
    orders: socket.socket, wake_fd: int, asked: list[int]
) -> tuple[dict[str, Any], list[int]] | None:
    """None when the server went away, or asks us to go and has sent none."""
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(wake_fd, select.POLLIN)
    while not asked:
        for fd, _ in poll.poll():
            if fd != wake_fd:
                return take(orders)
            os.read(wake_fd, 512)
    return take(orders, socket.MSG_DONTWAIT)


def _end_all() -> None:
    """Nobody will tell us what our child is: it may be the command by now, with a tree."""
    while True:
        signal_descendants(os.getpid(), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        sleep(KILL_AGAIN_S)


def _boottime_s() -> float:
    """Leases go on while a machine sleeps."""
    return clock_gettime(CLOCK_BOOTTIME)


class _Run:
    """State of one kept run; the poll loop owns it."""

    def __init__(
        self,
        control: socket.socket,
        order: dict[str, Any],
        command: _Command,
        wake_fd: int,
        asked: list[int],
    ) -> None:
        self._control = control
        self._wake_fd = wake_fd
        self._asked = asked
        self._log = BoundedLog(order["log_path"], order["head_bytes"], order["tail_bytes"])
        self._decoder = Decoder()
        self._decoder.feed(order["rest"].encode("latin-1"))
        self._poll = select.poll()
        self._outgoing = b""
        self._hung_up = False

        self._stage = RUNNING
        self._reason = "exited"
        self._error = ""
        self._grace_s: float = order["grace_s"]
        self._escalate_at: float | None = None
        self._kill_again_s = KILL_AGAIN_S

        self._pid = command.pid
        self._status: int | None = None
        self._gone = False
        self._started_at: float = order["at"]
        self._duration_s = 0.0
        timeout_s = order.get("timeout_s")
        self._timeout_at = None if timeout_s is None else self._started_at + timeout_s
        self._silence_s: float | None = order.get("silence_s") or None
        self._output_at: float = self._started_at
        hold_s: float | None = order.get("hold_s")
        self._unheld_at = None if hold_s is None else _boottime_s() + hold_s
        self._most_output: int | None = order.get("output_bytes")
        self._output_fd = command.output_fd
        self._exec_fd = command.exec_fd
        self._reported_at = self._started_at
        self._unreported = False
        control.setblocking(False)
        for fd in (control.fileno(), wake_fd, self._output_fd, self._exec_fd):
            self._poll.register(fd, select.POLLIN)

    def loop(self) -> None:
        """Until no descendant is left."""
        while not self._gone:
            for fd, _ in self._poll.poll(self._wait_ms()):
                if fd == self._output_fd:
                    self._pump()
                elif fd == self._wake_fd:
                    os.read(self._wake_fd, 512)
                elif fd == self._exec_fd:
                    self._executed()
                else:
                    self._listen()
            if self._asked:
                self._kill_now("orphaned")
            if self._unheld_at is not None and _boottime_s() >= self._unheld_at:
                self._kill_now("unheld")
            self._reap()
            self._escalate(monotonic())
            self._report_output(monotonic())

    def finish(self) -> None:
        """Drain what the dead left in the pipe, close the log and deliver the report."""
        if self._exec_fd >= 0:
            self._executed()
        limit = self._log.written_bytes + DRAIN_BYTES
        while self._output_fd >= 0 and self._log.written_bytes < limit:
            if not self._pump():
                break
        self._log.close()
        code = None if self._status is None else os.waitstatus_to_exitcode(self._status)
        self._send(
            {
                "reason": self._reason,
                "exit": code if code is not None and code >= 0 else None,
                "signal": -code if code is not None and code < 0 else None,
                "output_bytes": self._log.written_bytes,
                "tail": self._log.recent(),
                "duration_s": round(self._duration_s, 6),
                "error": self._error or self._log.error,
            }
        )
        writable = select.poll()
        writable.register(self._control, select.POLLOUT)
        while self._outgoing:
            writable.poll()
            self._flush()

    def obey(self, orders: list[dict[str, Any]]) -> None:
        """Orders from the client."""
        for message in orders:
            if message.get("op") == "kill":
                self._end("cancelled", float(message.get("grace_s", self._grace_s)))
            elif message.get("op") == "hold" and self._unheld_at is not None:
                self._unheld_at = _boottime_s() + float(message["s"])

    def _listen(self) -> None:
        try:
            data = self._control.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            if self._outgoing:
                self._flush()
            return
        except OSError:
            data = b""
        if data:
            try:
                self.obey(self._decoder.feed(data))
            except FrameError:
                self._kill_now("orphaned")  # whoever writes this is not our Nova
            return
        self._hung_up = True
        self._poll.unregister(self._control)
        self._kill_now("orphaned")

    def _pump(self) -> bool:
        """Move some output into the log; answers whether there may be more."""
        try:
            data = os.read(self._output_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._poll.unregister(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1
            return False
        self._log.write(data)
        self._unreported = True
        self._output_at = monotonic()
        if self._most_output is not None and self._log.written_bytes > self._most_output:
            self._most_output = None
            self._end("output", self._grace_s)
        return True

    def _executed(self) -> None:
        """The exec pipe closed: empty means success, else it says what failed."""
        failure = os.read(self._exec_fd, 4096)
        self._poll.unregister(self._exec_fd)
        os.close(self._exec_fd)
        self._exec_fd = -1
        if failure == LATE:
            self._reason = "late"
        elif failure:
            self._reason, self._error = "exec_failed", failure.decode("utf-8", "replace")
        else:
            self._send({"started": self._pid})

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
                self._status = status
                self._duration_s = monotonic() - self._started_at

    def _escalate(self, now: float) -> None:
        if self._gone:
            return
        if self._status is not None and self._stage < TERMINATING:
            self._terminate(now)  # the command ended the run; what it left behind follows it
        elif self._stage == RUNNING and self._timeout_at is not None and now >= self._timeout_at:
            self._end("timeout", self._grace_s)
        elif self._stage == RUNNING and self._silence_due(now):
            self._end("silent", self._grace_s)
        elif self._escalate_at is not None and now >= self._escalate_at:
            if self._stage == INTERRUPTED:
                self._terminate(now)
            else:
                self._kill(now)

    def _end(self, reason: str, grace_s: float) -> None:
        """Begin to end the tree: SIGINT, then SIGTERM, then SIGKILL, `grace_s` apart."""
        now = monotonic()
        # Who wants it gone soon is not overruled by who has more patience.
        self._grace_s = grace_s if self._stage == RUNNING else min(self._grace_s, grace_s)
        if self._stage == RUNNING and self._status is None:
            self._reason = reason
            if grace_s > 0:
                self._stage = INTERRUPTED
                # Unreaped, so its pid still names its group, and its session is below us alone.
                os.killpg(self._pid, signal.SIGINT)
                self._escalate_at = now + grace_s
                return
        if grace_s <= 0:
            self._kill(now)
        elif self._escalate_at is not None:
            self._escalate_at = min(self._escalate_at, now + grace_s)

    def _terminate(self, now: float) -> None:
        self._stage = TERMINATING
        self._escalate_at = now + self._grace_s
        signal_descendants(os.getpid(), signal.SIGTERM)
        signal_descendants(os.getpid(), signal.SIGCONT)  # the stopped can only die when they run

    def _kill_now(self, reason: str) -> None:
        if self._stage == RUNNING and self._status is None:
            self._reason = reason
        if self._stage != KILLING:
            self._kill(monotonic())

    def _kill(self, now: float) -> None:
        """SIGKILL to all there are, again for those born meanwhile, until none is left."""
        self._stage = KILLING
        for _ in range(KILL_ROUNDS):
            if not signal_descendants(os.getpid(), signal.SIGKILL):
                break
            self._reap()
            if self._gone:
                return
        self._escalate_at = now + self._kill_again_s
        self._kill_again_s = min(self._kill_again_s * 2, KILL_AGAIN_MAX_S)

    def _wait_ms(self) -> float | None:
        due = (self._escalate_at, self._timeout_due(), self._silent_at(), self._report_due())
        times = [at for at in due if at]
        wait_ms = max(0.0, min(times) - monotonic()) * 1000 + 1 if times else None
        if self._unheld_at is None or self._stage == KILLING:
            return wait_ms
        # A machine that slept has let time pass that no poll counts: look often.
        unheld_ms = min(HOLD_LOOK_MS, max(0.0, self._unheld_at - _boottime_s()) * 1000 + 1)
        return unheld_ms if wait_ms is None else min(wait_ms, unheld_ms)

    def _timeout_due(self) -> float | None:
        return self._timeout_at if self._stage == RUNNING else None

    def _silent_at(self) -> float | None:
        if self._silence_s is None or self._stage != RUNNING:
            return None
        return self._output_at + self._silence_s

    def _silence_due(self, now: float) -> bool:
        """What it wrote and nobody read yet is output too: this keeper may have been stopped."""
        at = self._silent_at()
        if at is None or now < at or self._output_fd < 0:
            return False
        return not self._pump()

    def _report_due(self) -> float | None:
        return self._reported_at + REPORT_EVERY_S if self._unreported else None

    def _report_output(self, now: float) -> None:
        if self._unreported and now >= self._reported_at + REPORT_EVERY_S:
            self._unreported, self._reported_at = False, now
            if not self._outgoing:  # a client that does not read gets fewer of these
                self._send({"output_bytes": self._log.written_bytes})

    def _send(self, message: dict[str, Any]) -> None:
        self._outgoing += encode(message)
        self._flush()

    def _flush(self) -> None:
        if self._hung_up:
            self._outgoing = b""
            return
        try:
            sent = self._control.send(self._outgoing, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._hung_up, self._outgoing = True, b""
            return
        self._outgoing = self._outgoing[sent:]
        events = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
        self._poll.modify(self._control, events)
