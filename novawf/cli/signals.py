"""Wake signals: `wake` sends one, `classify` says what would become of it, `suggestions`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.control import who
from novawf.cli.output import duration, pairs, table
from novawf.errors import UserError

if TYPE_CHECKING:
    from novawf.streams.wake_signals import Classification

_TIERS = "critical, high, medium, low or background"
_CLOCK_TIME = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
_Text = Annotated[str, typer.Argument(metavar="TEXT", help="What the signal says.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(
        app,
        "wake",
        'novawf wake torch "the build server is down" --priority critical',
        'novawf wake torch "urgent: look at the disk" --sender monitor -- df -h',
    )(wake)
    command(
        app,
        "classify",
        'novawf classify "Production API returns errors" --sender monitor',
        'novawf classify "Update the docs" --at 03:00 --load 4 --repeated 5 --json',
    )(classify)
    command(
        app, "suggestions", "novawf suggestions", "novawf suggestions --json | jq length"
    )(suggestions)  # fmt: skip


async def wake(
    call: Invocation,
    nova: Annotated[str, typer.Argument(metavar="NOVA", help="Whom it is for.")],
    text: _Text,
    argv: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGV...", help="A command to run for it, after `--`."),
    ] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help=f"{_TIERS}; else the fleet's rules decide.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option(metavar="S", help="Who says so. Default: your user name.")
    ] = None,
) -> None:
    """Send a wake signal to a Nova. It becomes a task, or a suggestion where it can wait."""
    work = {"argv": argv, "cwd": os.getcwd()} if argv else None  # noqa: PTH109 - as submit asks
    async with call.fleet() as fleet:
        sent = await fleet.wake(
            nova, text, sender=who() if sender is None else sender, priority=priority, work=work
        )
    call.out.show(sent, f"{sent['id']} in {sent['stream']}")


def classify(
    call: Invocation,
    text: _Text,
    sender: Annotated[
        str | None, typer.Option(metavar="X", help="Who says so. Default: your user name.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="As if the signal gave itself this tier.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="As if it came then: HH:MM here, or ISO 8601."),
    ] = None,
    load: Annotated[
        float, typer.Option(metavar="L", min=0, help="As if this were the load per core.")
    ] = 0.0,
    repeated: Annotated[
        int, typer.Option(metavar="N", min=1, help="As if it came for the Nth time.")
    ] = 1,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Rules of this file, not ./novawf.toml.")
    ] = None,
) -> None:
    """Say which tier a signal would have, and which rule decides. Nothing is sent or asked."""
    from novawf.settings import load_settings  # noqa: PLC0415 - see the package's docstring
    from novawf.streams import wake_signals  # noqa: PLC0415
    from novawf.streams.signals import parse_signal  # noqa: PLC0415

    settings = load_settings(config, {"fleet.home": call.home}).wake
    fields = {"message": text, "sender": who() if sender is None else sender}
    signal = parse_signal(fields if priority is None else {**fields, "priority": priority})
    context = wake_signals.Context(_hour(at), load, repeated)
    rules = wake_signals.Rules.of(settings)
    found = wake_signals.classify(signal.text, signal.sender, context, rules, signal.priority)
    becomes = "suggestion" if found.tier in wake_signals.SUGGESTED else "task"
    document = found.to_dict() | {"becomes": becomes, "context": context._asdict()}
    call.out.show(document, pairs(_lines(found, becomes)))


async def suggestions(call: Invocation) -> None:
    """List low and background signals that are no tasks yet, the oldest first."""
    async with call.fleet() as fleet:
        rows = await fleet.suggestions()
    if call.json or rows:
        call.out.show(rows, table(_COLUMNS, map(_row, rows)))
    else:
        call.out.note("no suggestions")


_COLUMNS = ("RECEIVED", "MAY START", "TIER", "NOVA", "SENDER", "TEXT")


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    start = row["due_at"] if row["has_work"] else None
    return row["received_at"], start, row["tier"], row["nova"], row["sender"], row["text"]


def _lines(found: Classification, becomes: str) -> list[tuple[str, Any]]:
    when = "at once" if found.delay_s == 0 else f"after {duration(found.delay_s)}"
    if becomes == "suggestion":
        when += ", when a Nova is idle"
    lines: list[tuple[str, Any]] = [
        ("tier", found.tier),
        ("work", when),
        ("rule", found.rule),
    ]
    if found.sender_rule is not None:
        lines.append(("sender", f"{found.sender_weight:+g} ({found.sender_rule})"))
    for step in found.escalations:
        lines.append((step.cause, f"{step.steps:+d} ({step.detail})"))
    return lines


def _hour(at: str | None) -> int:
    """The hour of `--at`, where this machine is. Raises UserError."""
    from novawf.clock import local_hour, parse_iso  # noqa: PLC0415

    if at is None:
        return local_hour()
    if clock_time := _CLOCK_TIME.fullmatch(at):
        return int(clock_time[1])
    try:
        return local_hour(parse_iso(at))
    except (ValueError, OverflowError, OSError):
        raise UserError(f"--at: {at!r} is neither HH:MM nor an ISO 8601 time") from None
