"""The sentinel: outlives a supervisor that died, for as long as it takes to end what is left.

Run by the supervisor, outside Ray, through `boot.py` with LIFELINE_FD. It reads lines from that
pipe and otherwise sleeps:

* ``add PID START_TIME LABEL``: end this process when the time comes. LABEL `keep`: never, neither
  by list nor by stamp (the embedded store). LABEL `keeper`: the keeper server, which ends what it
  keeps by itself; it has until `KEEPERS_WITHIN_S`.
* ``drop PID``: it is gone, or no longer ours to end.
* ``run RUN_ID``: the stamp; processes with ``NOVAWF_RUN_ID=RUN_ID`` in their environment count as
  ours. (Ray's agents overwrite theirs: those have to be listed.)
* ``linger JSON``: an argv to start, detached, at the very end.
* ``done``: orderly end; only what is still alive from the list is ended, nothing is started.

EOF without `done` means that the supervisor died. All is over within `WITHIN_S`. Nothing is ever
ended by name, and nothing whose start time was not confirmed through a pidfd. Standard library
only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

# Fleet time is of no use here, and novawf.clock would cost 2 MB of imports.
from time import monotonic  # noqa: TID251

from novawf.processes.identity import process_start_time, process_stat, signal_confirmed
from novawf.processes.tree import PR_SET_NAME, descendants, prctl

KEEPERS_WITHIN_S = 2.0
WITHIN_S = 3.8
LOOK_AGAIN_S = 0.02
ENVIRON_BYTES = 1 << 18

KEEP = "keep"
KEEPER = "keeper"


class Sentinel:
    """The list of what to end, and the ending."""

    def __init__(self) -> None:
        self._listed: dict[int, tuple[int, str]] = {}
        self._run_id = ""
        self._linger: list[str] | None = None
        self.done = False

    def take(self, line: str) -> None:
        """One line from the supervisor. What it cannot read it leaves out."""
        word, _, rest = line.partition(" ")
        try:
            if word == "add":
                pid, start_time, label = rest.split(" ", 2)
                self._listed[int(pid)] = (int(start_time), label)
            elif word == "drop":
                self._listed.pop(int(rest), None)
            elif word == "run":
                self._run_id = rest
            elif word == "linger":
                self._linger = [str(part) for part in json.loads(rest)]
            elif word == "done":
                self.done = True
        except ValueError:
            sys.stderr.write(f"sentinel: cannot read {line!r}\n")

    def end_list(self) -> None:
        """After `done`: SIGKILL what is still alive from the list, but not what is to stay."""
        for pid, (start_time, label) in self._listed.items():
            if label != KEEP:
                _kill(pid, start_time)

    def end_all(self) -> None:
        """The supervisor died: end the listed, then the stamped, until none is left."""
        began = monotonic()
        while True:
            patient = monotonic() < began + KEEPERS_WITHIN_S
            left = self._end_listed(patient) + self._end_stamped(patient)
            if left == 0 or monotonic() > began + WITHIN_S:
                break
            time.sleep(LOOK_AGAIN_S)
        if self._linger:
            _start_detached(self._linger)

    def _end_listed(self, patient: bool) -> int:
        left = 0
        for pid, (start_time, label) in self._listed.items():
            if label == KEEP or not _runs(pid, start_time):
                continue
            left += 1
            if not (patient and label == KEEPER):
                _kill(pid, start_time)
        return left

    def _end_stamped(self, patient: bool) -> int:
        """One look over all processes; keepers and what they keep are left to themselves at first.

        A keeper ends its tree completely, even what cleared its environment. Killed too early it
        could not.
        """
        if not self._run_id:
            return 0
        stamp = b"NOVAWF_RUN_ID=" + self._run_id.encode()
        spared = {os.getpid()}
        spared.update(pid for pid, (_, label) in self._listed.items() if label == KEEP)
        if patient:
            keepers = [
                pid
                for pid, (start_time, label) in self._listed.items()
                if label == KEEPER and _runs(pid, start_time)
            ]
            spared.update(keepers)
            for pid in keepers:
                spared.update(descendants(pid))
        left = 0
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):  # noqa: PTH208 - bare interpreter
            if pid in spared:
                continue
            start_time = process_start_time(pid)
            if start_time is not None and stamp in _environ(pid) and _runs(pid, start_time):
                left += 1
                _kill(pid, start_time)
        return left


def _runs(pid: int, start_time: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat[2] == start_time and stat[0] not in "ZX"


def _kill(pid: int, start_time: int) -> None:
    signal_confirmed(pid, signal.SIGKILL, lambda pid: _runs(pid, start_time))


def _environ(pid: int) -> list[bytes]:
    """The environment as it was at exec; empty for kernel threads and other users' processes."""
    try:
        fd = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, ENVIRON_BYTES).split(b"\0")
    except OSError:
        return []
    finally:
        os.close(fd)


def _start_detached(argv: list[str]) -> None:
    """Twice forked, in its own session: it belongs to nobody and leaves no zombie.

    Nor does it hold our stderr: who reads `novawf up 2>&1 | tee log` waits for the end of that.
    """
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    stderr = os.dup(2)  # closed by the exec
    try:
        os.setsid()
        if os.fork() == 0:
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(signum, signal.SIG_DFL)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.execvp(argv[0], argv)  # noqa: S606 - the supervisor's own order
    except OSError as error:
        os.write(stderr, f"sentinel: cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(0)


def main(args: list[str]) -> int:
    """LIFELINE_FD."""
    lifeline_fd = int(args[0])
    os.set_inheritable(lifeline_fd, False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it ends when its work is done, not when asked
    prctl(PR_SET_NAME, b"novawf-sentinel")
    sentinel = Sentinel()
    rest = b""
    while not sentinel.done and (data := os.read(lifeline_fd, 1 << 16)):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            sentinel.take(line.decode("utf-8", "surrogateescape"))
    if sentinel.done:
        sentinel.end_list()
    else:
        sentinel.end_all()
    return 0
