"""Run by the raylet where it would run Ray's `setup_worker.py`: has the fork server fork a worker.

A worker of Ray's own making imports Ray twice, which is most of what it costs. This asks
`actors.forkserver` instead, gives it arguments, environment, directory and standard streams, and
ends when the worker has answered. Whatever goes wrong before that, Ray's own way is taken: this
must never be the reason that no worker starts.

A script of its own, standard library only; the protocol is in `forkserver`.
"""

from __future__ import annotations

# It starts for every worker, and pathlib would cost a third of its time.
# ruff: noqa: PTH109, PTH118, PTH120, TID251
import os
import sys

SOCKET_VARIABLE = "NOVAWF_FORK_SOCKET"
SETUP_WORKER = "setup_worker.py"
"""Ray's own, beside the `default_worker.py` that the raylet names."""


def main() -> None:
    """Have a worker forked, or become one in Ray's own way; does not return."""
    if _forked(os.environ.get(SOCKET_VARIABLE, ""), sys.argv[1:]):
        os._exit(0)
    setup = os.path.join(os.path.dirname(sys.argv[1]), SETUP_WORKER)
    os.execv(sys.executable, [sys.executable, setup, *sys.argv[1:]])  # noqa: S606 - no shell


def _forked(path: str, arguments: list[str]) -> bool:
    if not path or not _is_plain(arguments):
        return False
    import json  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import socket  # noqa: PLC0415

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    request = {
        "argv": [
            argument
            for argument in arguments
            if not argument.startswith(("--language=", "--serialized-runtime-env-context="))
        ],
        "env": dict(os.environ),
        "cwd": os.getcwd(),
        "blocked": [int(number) for number in blocked],
        "oom_score_adj": _oom_score_adj(),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            socket.send_fds(connection, [b"\n"], (0, 1, 2))
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1) != b""
    except OSError:
        return False


def _is_plain(arguments: list[str]) -> bool:
    """Whether it is a Python worker that needs no environment of its own built first."""
    return "--language=PYTHON" in arguments and not any(
        argument.startswith("--serialized-runtime-env-context=")
        and argument.partition("=")[2] not in ("", "{}")
        for argument in arguments
    )


def _oom_score_adj() -> str:
    try:
        with open("/proc/self/oom_score_adj") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
