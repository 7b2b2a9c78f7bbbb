"""Commands about what is kept of tasks: `archive`, `compliance`."""

from __future__ import annotations

from typing import Annotated

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.output import counted, pairs, table

SWEEP_S = 60.0
"""How long `--now` sweeps at once; it goes on until nothing is left to do."""


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(app, "archive", "novawf archive", "novawf archive --now  # what is due leaves now")(
        archive
    )
    command(app, "compliance", "novawf compliance", "novawf compliance --json | jq .compliance")(
        compliance
    )


async def archive(
    call: Invocation,
    now: Annotated[
        bool, typer.Option("--now", help="First move there what is past its retention.")
    ] = False,
) -> int:
    """Show the archive on this machine: finished tasks that have left the store."""
    moved, done = 0, True
    async with call.fleet() as fleet:
        if now:
            swept = await fleet.sweep(SWEEP_S)
            moved, done = swept.tasks, swept.done
            while swept.tasks and not swept.done:
                swept = await fleet.sweep(SWEEP_S)
                moved, done = moved + swept.tasks, swept.done
        reader = await fleet.archive()
    files = reader.files()
    tasks, size = sum(file.lines for file in files), sum(file.bytes for file in files)
    if not done:
        call.out.note("another process is moving tasks there now")
    call.out.show(
        {
            "directory": str(reader.directory),
            "tasks": tasks,
            "bytes": size,
            "moved": moved,
            "files": [
                {"path": str(file.path), "day": file.day, "tasks": file.lines, "bytes": file.bytes}
                for file in files
            ],
        },
        f"{reader.directory}: {counted(tasks, 'task')}, {size:,} bytes"
        + (f"; {counted(moved, 'task')} moved there now" if now else ""),
        *(
            [table(("DAY", "TASKS", "BYTES"), [(f.day, f.lines, f.bytes) for f in files])]
            * bool(files)
        ),
    )
    return 0 if done else 1


async def compliance(call: Invocation) -> int:
    """Check all records on the task streams against the protocol, and show the figure."""
    async with call.fleet() as fleet:
        figure, last = await fleet.compliance()
    document = figure.as_json() | {"last_violation": last}
    shown = "no records yet" if figure.ratio is None else f"{100 * figure.ratio:.4g} %"
    lines = [("compliance", shown), ("records", f"{figure.valid} of {figure.all} are valid")]
    if last is not None:
        lines.append(("last broken", f"{last['stream']} {last['id']}"))
        lines.append(("", f"{last['field']}: {last['rule']}"))
    call.out.show(document, pairs(lines))
    return 0 if figure.valid == figure.all else 1
