"""Programs that stand in for the agent CLIs while a hook runs: `HOME/hooks/shims/claude` and so on.

They come first on the hook's PATH, and run `launcher`, which refuses and tells the guard.
"""

from __future__ import annotations

# On the path of every hook's execution: pathlib alone would cost 5 ms.
# ruff: noqa: PTH100, PTH103, PTH105, PTH118, PTH120, PTH123
import os
import shlex
import sys

from novawf.errors import CorruptState
from novawf.hooks.agents import AGENTS

FOLDER = "shims"


def shim_folder(directory: str) -> str:
    """Where they are."""
    return os.path.join(directory, FOLDER)


def make_shims(directory: str, python: str = sys.executable) -> str:
    """Make sure of them; answers their folder. Each is replaced whole. Raises CorruptState."""
    folder = shim_folder(directory)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        for agent in AGENTS:
            path, text = os.path.join(folder, agent), _text(agent, python)
            if _current(path, text):
                continue
            draft = f"{path}.{os.getpid()}"
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o700)
            with os.fdopen(file, "w") as out:
                out.write(text)
            os.replace(draft, path)
    except OSError as error:
        raise CorruptState(
            f"{folder} cannot be used: {error.strerror}; `novawf hook reset` makes it anew"
        ) from None
    return folder


def _text(agent: str, python: str) -> str:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    boot = os.path.join(package, "processes", "boot.py")
    line = shlex.join([python, "-I", "-S", boot, "novawf.hooks.launcher", agent])
    return f'#!/bin/sh\nexec {line} "$0" "$@"\n'


def _current(path: str, text: str) -> bool:
    try:
        with open(path) as file:
            return file.read() == text and os.access(path, os.X_OK)
    except OSError:
        return False
