"""`novawf audit verify|tail|search`: the trail of what was changed, by whom, and whether it holds.

It reads files of the home and needs neither fleet nor store.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from novawf.audit import chain
from novawf.audit.files import directory_of
from novawf.cli.command import (
    HomeOption,
    Invocation,
    JsonOption,
    StoreOption,
    command,
    example_text,
)
from novawf.cli.output import counted, table
from novawf.clock import SystemClock, parse_iso
from novawf.errors import NovawfError, UserError

_EXAMPLES = (
    "novawf audit verify",
    "novawf audit tail -n 20",
    "novawf audit tail -f",
    "novawf audit search stop --since 2026-11-27",
    "novawf audit search --who supervisor --action child --since 2h --json | jq .",
)
LOOK_S = 0.25
"""Pause between two looks at a trail that is followed."""
_AGO = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False)
    group.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(audit)
    command(group, "verify", _EXAMPLES[0])(verify)
    command(group, "tail", *_EXAMPLES[1:3])(tail)
    command(group, "search", *_EXAMPLES[3:])(search)
    app.add_typer(group, name="audit", short_help="Who changed what, and whether the trail holds")


def audit(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show who changed what, when and why; and check that nobody changed the trail itself."""
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    ctx.obj = before.merged(home, store, json)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


def verify(call: Invocation) -> int:
    """Walk the whole chain: exit 0 when it holds, else 1 and the first place where it does not."""
    directory = _directory(call)
    found = _read(directory, lambda: chain.verify(directory))
    first = found.faults[0] if found.faults else None
    document = {
        "ok": found.ok,
        "directory": str(directory),
        "files": found.files,
        "records": found.records,
        "first_at": found.first_ts,
        "last_at": found.last_ts,
        "last_sequence": found.last.sequence,
        "torn": found.torn,
        "fault": None if first is None else first.document(),
        "faults": [fault.document() for fault in found.faults],
    }
    call.out.show(document, *_verdict_lines(directory, found))
    return 0 if found.ok else 1


def tail(
    call: Invocation,
    count: Annotated[
        int, typer.Option("-n", "--lines", min=1, metavar="N", help="How many records.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is recorded from now on.")
    ] = False,
) -> None:
    """Show the last records."""
    if follow and call.json:
        raise UserError("--follow and --json: one document would never end; leave one of them out")
    directory = _directory(call)
    lines = _read(directory, lambda: chain.last_lines(directory, count))
    _show(call, list(_records(call, lines)))
    if follow:
        _follow(call, directory, lines)


def search(
    call: Invocation,
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="Anywhere in a record, in any case.")
    ] = None,
    who: Annotated[
        str | None, typer.Option(metavar="NAME", help="A user, supervisor, safety …")
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(metavar="VERB", help="`fleet.stop_all`, or `fleet` for all that begin so."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="ISO 8601, or so long ago: 90s, 15m, 2h, 3d.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="As --since.")] = None,
) -> None:
    """Show the records that fit all that is given."""
    from_s, to_s = _time("--since", since), _time("--until", until)
    wanted = None if text is None else text.casefold()
    directory = _directory(call)

    def fits(line: chain.Line) -> bool:
        record = line.record or {}
        if wanted is not None and wanted not in line.raw.decode("utf-8", "replace").casefold():
            return False
        if who is not None and record["who"] != who:
            return False
        if action is not None and not f"{record['action']}.".startswith(f"{action}."):
            return False
        if from_s is None and to_s is None:
            return True
        at_s = _at_s(record)
        return (from_s is None or at_s >= from_s) and (to_s is None or at_s <= to_s)

    _show(
        call,
        _read(directory, lambda: list(_records(call, chain.lines_of(directory), fits))),
    )


def _records(
    call: Invocation, lines: Iterable[chain.Line], fits: Callable[[chain.Line], bool] | None = None
) -> Iterator[dict[str, Any]]:
    """The records, and a remark for each line that is none."""
    for line in lines:
        if line.record is None:
            call.out.note(
                f"{line.file.name}:{line.number}: torn or changed, {counted(len(line.raw), 'byte')}"
                ": see `novawf audit verify`"
            )
        elif fits is None or fits(line):
            yield line.record


def _follow(call: Invocation, directory: Path, lines: list[chain.Line]) -> None:
    """For ever: what comes after these lines. One that has not ended may yet be set aside."""
    place = chain.Place(0, 0)
    while True:
        place = next((line.end for line in reversed(lines) if line.raw.endswith(b"\n")), place)
        time.sleep(LOOK_S)
        lines = _read(directory, lambda: list(chain.lines_of(directory, place)))  # noqa: B023 - at once
        rows = [line.record for line in lines if line.record is not None]
        if rows:
            call.out.show(None, table(_COLUMNS, map(_row, rows)).split("\n", 1)[1])


def _show(call: Invocation, rows: Iterable[dict[str, Any]]) -> None:
    found = list(rows)
    if call.json or found:
        call.out.show(found, table(_COLUMNS, map(_row, found)))
    else:
        call.out.note("no such records")


_COLUMNS = ("SEQUENCE", "AT", "WHO", "ACTION", "TARGET", "WHY AND WHAT CAME OF IT")


def _row(record: dict[str, Any]) -> tuple[Any, ...]:
    change = [
        f"{name} {_compact(record[name])}"
        for name in ("before", "after")
        if record[name] is not None
    ]
    target = record["target"]
    shown = target if isinstance(target, str) or target is None else _compact(target)
    said = "; ".join(part for part in (record["why"], ", ".join(change)) if part)
    return record["sequence"], record["ts"], record["who"], record["action"], shown, said


def _compact(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} {_compact(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return ", ".join(map(_compact, value)) or "none"
    return str(value)


def _verdict_lines(directory: Path, found: chain.Verdict) -> list[str]:
    whole = f"{counted(found.records, 'record')} in {counted(found.files, 'file')} of {directory}"
    lines = [
        f"{torn['file']}:{torn['line']}: torn by a writer that was killed, and set aside"
        for torn in found.torn
    ]
    if found.ok:
        return [*lines, f"the chain holds: {whole}"]
    faults = [
        f"{fault.file}{f':{fault.line}' if fault.line else ''}: {fault.kind}: {fault.what}"
        for fault in found.faults
    ]
    return [*lines, f"THE CHAIN IS BROKEN: {whole}", *faults]


def _directory(call: Invocation) -> Path:
    return directory_of(call.place().home)


def _read(directory: Path, reading: Callable[[], Any]) -> Any:
    try:
        return reading()
    except OSError as error:
        raise NovawfError(f"{directory}: cannot be read: {error.strerror or error}") from None


def _at_s(record: dict[str, Any]) -> float:
    try:
        return parse_iso(record["ts"])
    except (ValueError, TypeError):
        return 0.0


def _time(flag: str, given: str | None) -> float | None:
    """Unix seconds of `--since` or `--until`. Raises UserError."""
    if given is None:
        return None
    if ago := _AGO.fullmatch(given):
        return SystemClock(0).wall_s() - int(ago[1]) * _SECONDS[ago[2]]
    try:
        return parse_iso(given)
    except ValueError:
        raise UserError(
            f"{flag}: {given!r} is neither an ISO 8601 time nor so long ago as 90s, 15m, 2h, 3d"
        ) from None
