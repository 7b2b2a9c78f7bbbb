"""What a store was sent, held against what Dragonfly knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

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
