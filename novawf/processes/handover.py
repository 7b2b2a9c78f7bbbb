"""What a supervisor tells itself across an `exec`: the same process, begun anew.

A process of Ray that died takes the library in this process with it: Ray ends a driver whose raylet
is gone, at its next word to it. So the supervisor begins anew in the same process (`begin_anew`):
all that it started is ended by the sentinel, as if it had crashed, and the start finds its store
and its tasks as it does after a crash. The note is for this very process only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from novawf.clock import monotonic_s
from novawf.processes.identity import process_start_time

NOTE = "handover.json"
_REAP_S = 5.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Handover:
    """What the next image of this process is to know."""

    why: str
    novas: Sequence[str]
    sessions: Sequence[int] = ()
    """When earlier sessions of Ray were lost, monotonic ms."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Child → why it is in quarantine."""


def begin_anew(home: Path, note: Handover, environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by a fresh start of the same program, with a note for it."""
    pid = os.getpid()
    document = {"pid": pid, "start_time": process_start_time(pid), **asdict(note)}
    path = home / NOTE
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        json.dump(document, out)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2:
            with contextlib.suppress(OSError):  # the listing's own is gone by now
                os.set_inheritable(int(entry.name), False)  # Ray's are not all closed by exec
    os.execve(  # noqa: S606 - this very program, by its own path
        sys.executable, [sys.executable, *sys.orig_argv[1:]], dict(environment)
    )


def take_note(home: Path) -> Handover | None:
    """The note that the image before this one left, once; None where there was none."""
    path = home / NOTE
    try:
        document = json.loads(path.read_text())
        path.unlink()
        pid = os.getpid()
        if document["pid"] != pid or document["start_time"] != process_start_time(pid):
            return None
        return Handover(
            why=str(document["why"]),
            novas=tuple(document["novas"]),
            sessions=tuple(int(at) for at in document["sessions"]),
            restarts={str(k): int(v) for k, v in document["restarts"].items()},
            quarantined={str(k): str(v) for k, v in document["quarantined"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def reap_others(keep: int | None) -> None:
    """Bury the children of the image before this one, as nobody else does. `keep` lives on."""
    deadline_s = monotonic_s() + _REAP_S
    while monotonic_s() < deadline_s:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if _children() <= {keep}:
                return
            time.sleep(_PAUSE_S)


def _children() -> set[int | None]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    try:
        return {int(pid) for pid in path.read_text().split()}
    except OSError:
        return set()
