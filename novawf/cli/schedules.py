"""`novawf schedule add|list|remove`: tasks that come again and again. When, cron says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from novawf.cli.command import (
    HomeOption,
    Invocation,
    JsonOption,
    StoreOption,
    command,
    example_text,
)
from novawf.cli.output import table
from novawf.cli.submit import environment, json_array, validated, working_directory

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXAMPLES = (
    'novawf schedule add nightly --cron "0 3 * * *" --tz Europe/Berlin -- ./backup.sh',
    'novawf schedule add tidy --cron "*/15 * * * *" --python jobs:tidy --priority background',
    "novawf schedule list",
    "novawf schedule remove nightly",
)
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False)
    group.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(schedule)
    command(group, "add", *_EXAMPLES[:2])(add)
    command(group, "list", _EXAMPLES[2])(list_all)
    command(group, "remove", _EXAMPLES[3])(remove)
    app.add_typer(group, name="schedule", short_help="Submit a task again and again")


def schedule(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a task again and again, at the times of a cron expression."""
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    ctx.obj = before.merged(home, store, json)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


async def add(
    call: Invocation,
    name: _Name,
    cron: Annotated[
        str, typer.Option(metavar="EXPR", help="Minute, hour, day, month, weekday: '0 3 * * *'.")
    ],
    argv: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGV...", help="The command, after `--`; no shell is involved."),
    ] = None,
    tz: Annotated[str, typer.Option(metavar="ZONE", help="Whose clock, as Europe/Berlin.")] = "UTC",
    overlap: Annotated[
        str,
        typer.Option(metavar="skip|queue", help="While the last run has not ended: skip or queue."),
    ] = "skip",
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of one with this name.")
    ] = False,
    python: Annotated[
        str | None, typer.Option(metavar="PKG.MOD:FUNC", help="Run a Python callable.")
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its arguments, as a JSON array.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Default: the command itself.")] = None,
    description: Annotated[str | None, typer.Option(help="More about it, for people.")] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="critical, high, medium, low or background.")
    ] = None,
    nova: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this Nova may run it.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", help="End an attempt after so many seconds.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(metavar="N", help="Re-runs after the first, crashes included.")
    ] = None,
    accept: Annotated[
        str | None, typer.Option(metavar="CMD", help="Completed only when this succeeds after it.")
    ] = None,
    approval: Annotated[
        bool, typer.Option("--approval", help="Each run waits for `novawf approve`.")
    ] = False,
    cwd: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where it runs. Default: this directory.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Into its environment. Repeatable."),
    ] = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="command or python; implied by the work.")
    ] = None,
) -> None:
    """Keep a schedule: each due time submits the task once, and what was missed, once in all."""
    fields: dict[str, Any] = {
        "title": title,
        "description": description,
        "executor": executor,
        "argv": argv or None,
        "callable": python,
        "args": None if args is None else json_array(args),
        "priority": priority,
        "nova": nova,
        "timeout_s": timeout,
        "retries": retries,
        "accept": accept,
        "approval": approval or None,
        "cwd": working_directory(cwd, runs_command=bool(argv)),
        "env": environment(env or ()),
    }
    spec = validated({name: value for name, value in fields.items() if value is not None})
    async with call.fleet() as fleet:
        kept = await fleet.schedule(
            name, cron, spec, tz=tz, overlap=cast(Literal["skip", "queue"], overlap),
            replace=replace,
        )  # fmt: skip
    call.out.show(kept, f"{name}: next at {kept['next_at']}")


async def list_all(call: Invocation) -> None:
    """List schedules: when each is due, and what became of it so far."""
    async with call.fleet() as fleet:
        rows = await fleet.schedules()
    if call.json or rows:
        call.out.show(rows, table(_COLUMNS, map(_row, rows)))
    else:
        call.out.note("no schedules")


async def remove(call: Invocation, name: _Name) -> None:
    """Forget a schedule; tasks that it has submitted stay."""
    async with call.fleet() as fleet:
        await fleet.unschedule(name)
    call.out.show({"name": name, "removed": True}, f"{name}: removed")


_COLUMNS = ("NAME", "CRON", "ZONE", "NEXT", "LAST TASK", "RUNS", "MISSED", "SKIPPED", "NOTE")


def _row(row: dict[str, Any]) -> Sequence[Any]:
    note = row["last_error"] or row["task"]["title"]
    due = row["next_at"] or "never again"
    counts = (row["runs"], row["missed"], row["skipped"])
    return row["name"], row["cron"], row["tz"], due, row["last_task_id"], *counts, note
