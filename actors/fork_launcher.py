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
ANSWER_S = 20.0
"""A server that takes longer hangs; the raylet waits for a worker for a minute."""


def main() -> None:
    """Have a worker forked, or become one in Ray's own way; does not return."""
    arguments = sys.argv[1:]
    try:
        if _forked(os.environ.get(SOCKET_VARIABLE, ""), arguments):
            os._exit(0)
    except Exception as error:
        sys.stderr.write(f"fork launcher: {error!r}\n")
    worker = next((argument for argument in arguments if not argument.startswith("-")), "")
    setup = os.path.join(os.path.dirname(worker), SETUP_WORKER)
    os.execv(sys.executable, [sys.executable, setup, *arguments])  # noqa: S606 - no shell


def _forked(path: str, arguments: list[str]) -> bool:
    if not path or not _is_plain(arguments):
        return False
    import json  # noqa: PLC0415
    import resource  # noqa: PLC0415
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
        # Ray raises it in its driver after the server was started.
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "oom_score_adj": _oom_score_adj(),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            socket.send_fds(connection, [b"\n"], (0, 1, 2))
            connection.sendall(json.dumps(request).encode())
            connection.shutdown(socket.SHUT_WR)
            try:
                return connection.recv(1) != b""
            except TimeoutError:
                # No answer can be sent from here on; one that was sent before can still be read.
                connection.shutdown(socket.SHUT_RDWR)
                return connection.recv(1) != b""
    except OSError:
        return False


def _is_plain(arguments: list[str]) -> bool:
    """Whether it is a Python worker that needs no flags of the interpreter, and no environment of
    its own built first."""
    return (
        not arguments[0].startswith("-")
        and "--language=PYTHON" in arguments
        and not any(
            argument.startswith("--serialized-runtime-env-context=")
            and argument.partition("=")[2] not in ("", "{}")
            for argument in arguments
        )
    )


def _oom_score_adj() -> str:
    try:
        with open("/proc/self/oom_score_adj") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
