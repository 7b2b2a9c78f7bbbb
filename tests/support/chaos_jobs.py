"""Jobs that write down when they run, for tests that kill who runs them.

Each line is one O_APPEND write: `task attempt what unix_ns nova`, where `what` is start, end or
failed. Commands write the same lines (`command`). The wall clock, because both can read it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

START, END, FAILED = "start", "end", "failed"


class Line(NamedTuple):
    """One line of the log."""

    task_id: str
    attempt: int
    what: str
    at_ns: int
    nova: str


def work(ctx: Any, log: str, seconds: float) -> None:
    """Work for a while, or not at all."""
    _note(ctx, log, START)
    if seconds:
        time.sleep(seconds)
    _note(ctx, log, END)


def fail_first(ctx: Any, log: str) -> None:
    """Fails in its first attempt."""
    _note(ctx, log, START)
    if ctx.attempt == 1:
        _note(ctx, log, FAILED)
        raise RuntimeError("the first time")
    _note(ctx, log, END)


def fail_always(ctx: Any, log: str) -> None:
    """Fails in every attempt."""
    _note(ctx, log, START)
    _note(ctx, log, FAILED)
    raise RuntimeError("every time")


def command(log: str, seconds: float) -> list[str]:
    """The argv of a command that does what `work` does."""
    line = 'echo "$NOVAWF_TASK_ID $NOVAWF_ATTEMPT {} $(date +%s%N) $NOVAWF_NOVA" >> "$0"'
    return ["sh", "-c", f"{line.format(START)}; sleep {seconds}; {line.format(END)}", log]


def read(log: str) -> list[Line]:
    """All lines, in the order in which they were written."""
    parts = [line.split() for line in Path(log).read_text().splitlines()]
    return [
        Line(task, int(attempt), what, int(at), nova) for task, attempt, what, at, nova in parts
    ]


def _note(ctx: Any, log: str, what: str) -> None:
    line = f"{ctx.task_id} {ctx.attempt} {what} {time.time_ns()} {ctx.nova}\n"
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
