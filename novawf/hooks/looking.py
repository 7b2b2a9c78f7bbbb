"""Reads from /proc what `watch` judges: the processes below one, their images and their words."""

from __future__ import annotations

# On the path of every hook's execution: pathlib alone would cost 5 ms.
# ruff: noqa: PTH115, PTH118
import os

from novawf.hooks.agents import script_operand, unwrapped
from novawf.hooks.watch import Seen, Watch, script_of
from novawf.processes.identity import read_small
from novawf.processes.tree import descendants

_CMDLINE_BYTES = 1 << 14
_STACK_BEGINS = 25
"""Field 28 of /proc/PID/stat, counted behind the command's name; another one after each exec."""


def look(root: int, watch: Watch, own_image: int) -> list[Seen]:
    """The processes below `root` that live, parents first. What is still a copy of `root` itself
    (`own_image`) has not become anything yet."""
    found = []
    for pid in descendants(root):
        fields = _stat(pid)
        if fields is None or fields[0] in b"ZX":
            continue
        image = int(fields[_STACK_BEGINS])
        if image in (0, own_image):
            continue
        argv: tuple[str, ...] = ()
        script = ""
        if not watch.knows(image):
            argv = _argv(pid)
            script = _script(pid, argv) if argv else ""
        found.append(Seen(pid, int(fields[1]), int(fields[19]), image, argv, script))
    return found


def image_of(pid: int) -> int:
    """The image of one process; 0 when it is gone."""
    fields = _stat(pid)
    return 0 if fields is None else int(fields[_STACK_BEGINS])


def _stat(pid: int) -> list[bytes] | None:
    text = read_small(f"/proc/{pid}/stat")
    # The command's name may hold spaces and parentheses: count from the last one.
    return text[text.rindex(b")") + 2 :].split() if text else None


def _argv(pid: int) -> tuple[str, ...]:
    text = read_small(f"/proc/{pid}/cmdline", _CMDLINE_BYTES)
    if not text:
        return ()
    return tuple(part.decode("utf-8", "replace") for part in text.rstrip(b"\0").split(b"\0"))


def _script(pid: int, argv: tuple[str, ...]) -> str:
    operand = script_operand(unwrapped(argv))
    if operand is None:
        return script_of(argv)
    try:
        return os.path.realpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), operand))
    except OSError:
        return operand
