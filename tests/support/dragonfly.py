"""What a store was sent, held against what Dragonfly knows; and which scripts this session ran.

Scripts run behind the shim of declared keys (`lua_shim.py`) in every process of the tests, see
`conftest.py` and `behind_shim/`; here is noted which ones really did.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

COMMANDS = {
    line.split()[0]
    for line in (Path(__file__).parents[1] / "store" / "dragonfly_commands.txt")
    .read_text()
    .splitlines()
    if line and not line.startswith("#")
}
"""Every command of Dragonfly."""


def commands(stats: Mapping[str, object]) -> set[str]:
    """The commands in a reply to INFO commandstats, those that scripts called included."""
    return {name.removeprefix("cmdstat_").partition("|")[0].upper() for name in stats}


def unknown(stats: Mapping[str, object]) -> set[str]:
    """Those which Dragonfly would refuse."""
    return commands(stats) - COMMANDS


SCRIPTS_RUN: set[tuple[str, str]] = set()
"""Package and name of each script, or part of one, that ran to its end in this process."""

SENT: dict[str, str] = {}
"""Command → the first test after which the session's store had heard it."""


def hear(stats: Mapping[str, object], test: str) -> None:
    """Note what a store was sent until the end of a test."""
    for command in commands(stats):
        SENT.setdefault(command, test)


def noted(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`Script.__call__`, noting what ran."""

    async def run(script: Any, *args: Any, **more: Any) -> Any:
        reply = await call(script, *args, **more)
        SCRIPTS_RUN.update((script.package, part) for part in (*script.prefixes, script.name))
        return reply

    return run
