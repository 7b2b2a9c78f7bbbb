"""Shuts an embedded store down some time after its supervisor died, unless it is adopted first.

Run as `python -I -S valkey_linger.py SOCKET OWNER_LOCK OWNER LINGER_S SERVER_PID SERVER_START` by
the sentinel; standard library only, so that waiting costs 9 MB and no package can break it. It is
not a watchdog: it restarts nothing, and touches no process but the server named in its arguments.

The owner lock decides: a supervisor holds it for its whole life, so a free lock means that nobody
owns the store. This program takes the lock itself before it says SHUTDOWN, and keeps it until the
server is gone; a supervisor that starts at that moment waits for the lock, then starts a server.
"""

# It runs without this package (its clock) and without pathlib, which costs 1 MB:
# ruff: noqa: PTH123, TID251

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time

POLL_S = 1.0
SHUTDOWN_DEADLINE_S = 10.0
ADOPTED, GONE, SHUT_DOWN = "adopted", "gone", "shut down"


def process_start(pid: int) -> int | None:
    """Start time of a live process, in ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            text = stat.read()
    except OSError:
        return None
    # The command's name may hold spaces and parentheses: count from the last one.
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in b"ZX" else int(fields[19])


def wait_gone(pid: int, start: int, timeout_s: float) -> bool:
    """Whether exactly this process ended within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while process_start(pid) == start:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def kill_confirmed(pid: int, start: int, signum: int) -> None:
    """Signal the process if it is still the one that started then; the pidfd pins it."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if process_start(pid) == start:
            signal.pidfd_send_signal(pidfd, signum)
    except OSError:
        pass  # it ended by itself
    finally:
        os.close(pidfd)


def try_lock(path: str) -> int | None:
    """A descriptor that holds the lock at `path`, or None while somebody else does."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def ask(socket_path: str, *words: str, timeout_s: float = 1.0) -> tuple[bytes, int]:
    """Send one command; its first reply bytes and the server's pid. OSError when nobody answers.

    The pid is the kernel's word for who listens there (SO_PEERCRED), not a file's.
    """
    request = b"*%d\r\n" % len(words)
    for word in words:
        raw = word.encode()
        request += b"$%d\r\n%s\r\n" % (len(raw), raw)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(socket_path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        connection.sendall(request)
        return connection.recv(4096), int.from_bytes(credentials[:4], sys.byteorder)


def shut_down(socket_path: str, pid: int, start: int, timeout_s: float) -> bool:
    """End the server cleanly, by force after `timeout_s`. Whether it was clean.

    Force loses nothing that was acknowledged: the log is already in the kernel's hands.
    """
    try:
        ask(socket_path, "SHUTDOWN", timeout_s=timeout_s)
    except OSError:
        kill_confirmed(pid, start, signal.SIGTERM)
    if wait_gone(pid, start, timeout_s):
        return True
    kill_confirmed(pid, start, signal.SIGKILL)
    wait_gone(pid, start, timeout_s)
    return False


def linger(
    socket_path: str, owner_lock: str, owner: str, linger_s: float, pid: int, start: int
) -> str:
    """Wait, then shut the server down; answers how it ended. `owner` is who died."""
    deadline = time.monotonic() + linger_s
    while True:
        if process_start(pid) != start:
            return GONE
        try:
            lock = try_lock(owner_lock)
        except OSError:  # the home was removed: nobody can adopt a server without its directory
            shut_down(socket_path, pid, start, SHUTDOWN_DEADLINE_S)
            return SHUT_DOWN
        if lock is None:
            return ADOPTED
        # An owner that came and went between two looks has a sentinel of its own for this.
        if os.pread(lock, 256, 0).decode().strip() != owner:
            os.close(lock)
            return ADOPTED
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            shut_down(socket_path, pid, start, SHUTDOWN_DEADLINE_S)
            return SHUT_DOWN  # the lock goes with this process, after the server
        os.close(lock)
        time.sleep(min(left_s, POLL_S))


if __name__ == "__main__":
    _socket, _lock, _owner, _linger_s, _pid, _start = sys.argv[1:]
    linger(_socket, _lock, _owner, float(_linger_s), int(_pid), int(_start))
