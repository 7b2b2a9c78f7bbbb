"""The forked child of a keeper: it becomes the command, or says what stood in the way.

It is forked ahead and waits for its order on a channel of its own, so nothing but an exec is left
to do when one comes. It imports nothing that the keeper server has not imported already (a
`resource` for limits aside). Not here: the life of the command afterwards (`keeping`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
from time import CLOCK_BOOTTIME, clock_gettime

from novawf.processes.handing import MAX_FDS, rehearse, take
from novawf.processes.tree import PR_SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LATE = b"\0late"
"""Said on the exec pipe by what was not begun, because its time to begin was over."""

_ROOM_END = 3 + MAX_FDS + 1  # the last for an order that comes in a memory file
_RESET_SIGNALS = (
    *(signal.SIGTERM, signal.SIGCHLD),  # ours
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT),  # Python's; commands expect the defaults
    *(signal.SIGQUIT, signal.SIGHUP),  # ignored where a fleet was started with nohup or &
)


def become_command(keeper: int, channel: int, output_fd: int, exec_fd: int) -> NoReturn:
    """In the forked child: wait on `channel` for the order, then become the command.

    What stands in the way is said on `exec_fd`. Without an order it ends, as it does with its
    keeper.
    """
    subject = "a command"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before we could ask to follow it
            os._exit(127)
        channel, exec_fd = _place_descriptors(output_fd, channel, exec_fd)
        signal.set_wakeup_fd(-1)
        for signum in _RESET_SIGNALS:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        rehearse()
        given = take(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, channel))
        if given is None:
            os._exit(127)
        order, fds = given
        argv, cwd = order["argv"], order["cwd"]
        subject = argv[0]
        if fds != [*range(3, 3 + len(fds))]:
            raise RuntimeError(f"its descriptors came as {fds}")
        env = {_bytes(name): _bytes(value) for name, value in order["env"].items()}
        env[b"NOVAWF_KEEPER"] = _bytes(order["stamp"])
        if order["rlimits"]:
            subject = "resource limits"
            _limit(order["rlimits"])
            subject = argv[0]
        if cwd is not None:
            subject = f"{argv[0]} in {cwd}"
            os.chdir(_bytes(cwd))
            subject = argv[0]
        words, start_by_s = [_bytes(word) for word in argv], order.get("start_by_s")
        if start_by_s is not None and clock_gettime(CLOCK_BOOTTIME) > start_by_s:
            os.write(exec_fd, LATE)
            os._exit(127)
        _execute(words, env)
    except OSError as error:
        number = error.errno or errno.EIO
        name = errno.errorcode.get(number, str(number))
        os.write(exec_fd, f"{subject}: {os.strerror(number)} ({name})".encode("utf-8", "replace"))
    except Exception as error:  # a NUL byte in an argument, and the like
        os.write(exec_fd, f"{subject}: {error}".encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _limit(rlimits: dict[str, int]) -> None:
    """Set limits, as far as the ones we have ourselves allow."""
    import resource  # noqa: PLC0415 - most commands have no limits

    for name, value in rlimits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        # At the hard limit of processor time there is only SIGKILL: leave a second for SIGXCPU.
        most = value + (kind == resource.RLIMIT_CPU)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (min(value, most), most))


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> NoReturn:
    """execvpe(3), which in Python would import `warnings` here, for 1.5 ms a command."""
    candidates = [argv[0]]
    if b"/" not in argv[0]:
        folders = env.get(b"PATH", os.defpath.encode()).split(b":")
        candidates = [folder + b"/" + argv[0] for folder in folders]
    failure: OSError = FileNotFoundError(errno.ENOENT, "")
    for path in candidates:
        try:
            os.stat(path)  # noqa: PTH116 - a look costs a tenth of an exec in vain
            os.execve(path, argv, env)  # noqa: S606 - what we are for
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # found and refused: says more than "not found" elsewhere
            failure = error
    raise failure


def _place_descriptors(output_fd: int, channel: int, exec_fd: int) -> tuple[int, int]:
    """stdin from nowhere, stdout and stderr to the pipe, and room from 3 on for what is given.

    Answers where the channel and the exec pipe are now; they close on exec, all others are closed.
    """
    # Copies beyond the room first: any of these may sit where another one has to go.
    channel = fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, _ROOM_END)
    exec_fd = fcntl.fcntl(exec_fd, fcntl.F_DUPFD_CLOEXEC, channel + 1)
    output_fd = fcntl.fcntl(output_fd, fcntl.F_DUPFD_CLOEXEC, exec_fd + 1)
    os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
    os.dup2(output_fd, 1)
    os.dup2(output_fd, 2)
    os.closerange(3, channel)
    os.closerange(channel + 1, exec_fd)
    os.closerange(exec_fd + 1, os.sysconf("SC_OPEN_MAX"))
    return channel, exec_fd


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
