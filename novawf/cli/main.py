"""The program `novawf`: puts the groups of commands together. Entry point: `run`."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from novawf.cli import (
    audit,
    budget,
    control,
    crew,
    doctor,
    hook,
    importing,
    lifecycle,
    logs,
    records,
    safety,
    schedules,
    signals,
    submit,
    tasks,
    view,
    why,
)
from novawf.cli.command import (
    HomeOption,
    Invocation,
    JsonOption,
    StoreOption,
    example_text,
)
from novawf.cli.run import run_app

PROG = "novawf"
COLLECT_AFTER_OBJECTS = 300_000
"""Imports make about a third of that; a command that runs for hours is still collected."""

_EXAMPLES = (
    "novawf up --novas torch,echo,helix",
    "novawf submit --wait -- echo hello",
    "novawf status",
)


def run() -> None:
    """Entry point of the console script."""
    # Most of a short command's time is importing, and a tenth of that was the collector looking
    # through modules that stay anyway.
    gc.set_threshold(COLLECT_AFTER_OBJECTS)
    sys.exit(run_app(make_app(), PROG))


def make_app() -> typer.Typer:
    """The whole application."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(start)
    groups = (
        lifecycle, view, why, submit, importing, schedules, signals, tasks, logs, records, control,
        safety, budget, hook, crew, audit, doctor,
    )  # fmt: skip
    for group in groups:
        group.register(app)
    return app


def start(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Keep a fleet of workers busy around the clock, safely.

    Exit codes: 0 done, 1 the asked-for thing failed, 2 wrong usage, 3 no fleet or store in reach.
    """
    ctx.obj = Invocation(home, store, json)
    if version:
        typer.echo(f"{PROG} {_version()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - rarely needed

    try:
        return version(PROG)
    except PackageNotFoundError:
        return "(not installed, run from its source)"
