"""What runs when a hook calls an agent CLI: it refuses, and tells the guard of that hook.

Run by the shims through `boot.py` with AGENT, the shim's path, and the call's arguments. A call
that asks for nothing but information (`--version`) goes on to the real program. The guard is found
by walking up the tree, so a hook that clears its environment changes nothing.
"""

from __future__ import annotations

# Runs in a bare interpreter, where pathlib would cost 1 MB.
# ruff: noqa: PTH118, PTH120
import contextlib
import os
import sys

from novawf.hooks.agents import starts_session
from novawf.hooks.calling import ask

REFUSED = 75
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WAIT_S = 2.0


def main(args: list[str]) -> int:
    """AGENT SHIM ARGUMENTS…"""
    agent, shim, arguments = args[0], args[1], args[2:]
    if not starts_session(arguments):
        _become(agent, os.path.dirname(shim), arguments)
        sys.stderr.write(f"novawf hook: no {agent} on the PATH\n")
        return 127
    sys.stderr.write(
        f"novawf hook: {agent} is refused: a hook never starts an agent; leave a signal instead "
        "(`novawf wake`, `novawf submit`, a file)\n"
    )
    sys.stderr.flush()
    answer = ask({"started": agent})  # usually this process is ended before it is answered
    if answer is not None:
        answer.settimeout(_WAIT_S)
        with contextlib.suppress(OSError):
            answer.recv(1)
    return REFUSED


def _become(agent: str, own: str, arguments: Sequence[str]) -> None:
    """Become the real program, the first on the PATH that is not ours."""
    folders = os.environ.get("PATH", os.defpath).split(":")  # noqa: TID251 - a program, not a setting
    for folder in folders:
        path = os.path.join(folder, agent)
        if (
            folder
            and os.path.realpath(folder) != os.path.realpath(own)
            and os.access(path, os.X_OK)
        ):
            os.execv(path, [agent, *arguments])  # noqa: S606 - what was asked for
