"""Draws the tables of `states.py` and `phases.py` as Mermaid diagrams under docs/diagrams.

`python -m novawf.workflow.diagram --write` writes them; `--check` exits 1 when a file differs
from its table, as the tests do. The diagrams are made here and never edited by hand.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from novawf.workflow import phases, states

_S = TypeVar("_S", bound=StrEnum)
_E = TypeVar("_E", bound=StrEnum)

DIRECTORY = Path(__file__).resolve().parents[2] / "docs" / "diagrams"
"""Where the diagrams of a source tree are."""


def render() -> dict[str, str]:
    """File name → text of every diagram."""
    return {
        "workflow-states.md": _page(
            "Workflow states",
            "novawf/workflow/states.py",
            _diagram(states.INITIAL, states.State, states.TRANSITIONS),
        ),
        "phases.md": _page(
            "Phases",
            "novawf/workflow/phases.py",
            _diagram(phases.INITIAL, phases.Phase, phases.PHASES),
        ),
    }


def stale(directory: Path = DIRECTORY) -> list[str]:
    """The names of the files that are missing or differ from their table."""
    return [
        name
        for name, text in render().items()
        if not (directory / name).is_file() or (directory / name).read_text() != text
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the diagrams; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m novawf.workflow.diagram")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the diagrams")
    mode.add_argument("--check", action="store_true", help="exit 1 when one differs")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    options = parser.parse_args(argv)
    old = stale(options.directory)
    if options.write:
        options.directory.mkdir(parents=True, exist_ok=True)
        for name in old:
            (options.directory / name).write_text(render()[name])
            sys.stdout.write(f"wrote {options.directory / name}\n")
        return 0
    for name in old:
        sys.stderr.write(
            f"{options.directory / name} differs from its table: "
            "run python -m novawf.workflow.diagram --write\n"
        )
    return 1 if old else 0


def _diagram(
    initial: _S,
    members: Iterable[_S],
    table: Mapping[tuple[_S, _E], _S],
) -> list[str]:
    """The lines of one diagram; an event that every state answers alike is drawn once."""
    everywhere = _from_everywhere(members, table)
    lines = ["stateDiagram-v2", f"    [*] --> {initial}"]
    labels: dict[tuple[_S, _S], list[str]] = defaultdict(list)
    for (source, event), target in table.items():
        if event not in everywhere:
            labels[source, target].append(event)
    lines += [
        f"    {source} --> {target}: {' or '.join(events)}"
        for (source, target), events in labels.items()
    ]
    if everywhere:
        lines.append('    state "any state" as any_state')
    lines += [f"    any_state --> {target}: {event}" for event, target in everywhere.items()]
    return lines


def _from_everywhere(members: Iterable[_S], table: Mapping[tuple[_S, _E], _S]) -> dict[_E, _S]:
    """Event → target, for the events that lead from every member to one and the same."""
    targets: dict[_E, list[_S]] = defaultdict(list)
    for (_, event), target in table.items():
        targets[event].append(target)
    count = len(list(members))
    return {
        event: found[0]
        for event, found in targets.items()
        if len(found) == count and len(set(found)) == 1
    }


def _page(title: str, source: str, lines: Sequence[str]) -> str:
    body = "\n".join(lines)
    return (
        f"# {title}\n\nGenerated from `{source}` by `python -m novawf.workflow.diagram --write`; "
        f"do not edit.\n\n```mermaid\n{body}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main())
