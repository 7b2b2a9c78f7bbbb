"""`novawf hook check|run|status|reset`: hooks of agent CLIs, kept from running away.

`run` is here for its help and its errors: a call that is right never comes this way (`entry`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from novawf.audit.log import AuditLog, user_name
from novawf.cli.command import (
    HomeOption,
    Invocation,
    JsonOption,
    StoreOption,
    command,
    example_text,
)
from novawf.cli.entry import hooks_home, run_guarded
from novawf.cli.output import counted, duration, printable, table
from novawf.errors import CorruptState, NotFound, UserError

_EXAMPLES = (
    "novawf hook check .claude",
    "novawf hook run -- ~/.claude/hooks/stop.sh",
    "novawf hook status",
    "novawf hook reset ~/.claude/hooks/stop.sh",
)


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False)
    group.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(hook)
    command(group, "check", _EXAMPLES[0], "novawf hook check stop.sh settings.json --json")(check)
    command(group, "run", _EXAMPLES[1], "novawf hook run --timeout 10 -- python3 gate.py")(run)
    command(group, "status", _EXAMPLES[2])(status)
    command(group, "reset", _EXAMPLES[3], "novawf hook reset  # all of them")(reset)
    app.add_typer(group, name="hook", short_help="Check hooks of agent CLIs, and guard their runs")


def hook(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Check hooks of agent CLIs, and guard their runs."""
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    ctx.obj = before.merged(home, store, json)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


def check(
    call: Invocation,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Scripts, settings, or directories of them."),
    ],
) -> int:
    """Read hooks and the settings that name them, and report what runs away or does nothing.

    Exit codes: 0 no errors, 1 errors found, 2 wrong usage.
    """
    from novawf.hooks.checking import check_paths  # noqa: PLC0415 - see the package's docstring
    from novawf.hooks.findings import Severity  # noqa: PLC0415

    found = check_paths(paths, os.path.expanduser("~"))  # noqa: PTH111 - the check takes texts
    errors = sum(finding.severity is Severity.ERROR for finding in found)
    warnings = len(found) - errors
    lines = []
    for finding in found:
        place = f"{finding.path}:{finding.line}"
        lines.append(printable(f"{place}: {finding.severity}: {finding.message} [{finding.rule}]"))
        lines.append(f"    {finding.remedy}")
    lines.append(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    document = {
        "findings": [finding.document() for finding in found],
        "errors": errors,
        "warnings": warnings,
    }
    call.out.show(document, *lines)
    return 1 if errors else 0


def run(
    call: Invocation,
    argv: Annotated[
        list[str], typer.Argument(metavar="-- CMD...", help="The hook and its arguments.")
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What it is called; else its script's path.")
    ] = "",
    timeout: Annotated[float, typer.Option(metavar="S", help="Ended after so long.")] = 60.0,
    refused_exit: Annotated[
        int, typer.Option(metavar="CODE", help="Exit code of a refusal; 2 blocks.")
    ] = 75,
    limit: Annotated[
        int, typer.Option(metavar="N", help="Executions in 60 s; one more shuts it off.")
    ] = 10,
    cooldown: Annotated[
        float, typer.Option(metavar="S", help="How long it stays shut off.")
    ] = 300.0,
) -> int:
    """Run a hook under guard: no agent inside it, no loop, no storm of executions.

    stdin, stdout, stderr and exit code are the hook's. A refusal is one line and exit code 75.
    """
    from novawf.hooks.guard import Order  # noqa: PLC0415

    environ = os.environ  # noqa: TID251 - the hook inherits it as it is
    order = Order(argv, hooks_home(str(call.home or ""), environ))
    order.name, order.timeout_s, order.refused_exit = name, timeout, refused_exit
    order.limit, order.cooldown_s = limit, cooldown
    if not order.valid():
        raise UserError(
            "--timeout, --cooldown and --limit are more than 0, --refused-exit is 0 to 255"
        )
    return run_guarded(order, environ)


def status(call: Invocation) -> None:
    """Show the hooks that were seen, and which are shut off until when and why."""
    from novawf.clock import SystemClock, boot_id, boottime_ms, iso  # noqa: PLC0415

    now_ms, boot, wall_s = boottime_ms(), boot_id() or "unknown", SystemClock(0).wall_s()
    files = _files(call)
    rows: list[dict[str, Any]] = []
    for path in files.paths():
        try:
            state = files.read(path)
        except CorruptState as error:
            rows.append({"name": path, "state": "unreadable", "reason": str(error)})
            continue
        if state is not None:
            rows.append(_row(state, now_ms, boot, wall_s, iso))
    shown = table(
        ("HOOK", "STATE", "LAST MINUTE", "SEEN", "WHY"),
        [
            (
                row["name"],
                row["state"],
                row.get("last_minute"),
                row.get("seen_at"),
                _why(row),
            )
            for row in rows
        ],
    )
    call.out.show({"hooks": rows}, shown if rows else "no hook was run under guard yet")


def _row(state: Any, now_ms: int, boot: str, wall_s: float, iso: Any) -> dict[str, Any]:
    from novawf.hooks.state import WINDOW_MS, on_this_boot, recovered  # noqa: PLC0415

    state = recovered(on_this_boot(state, now_ms, boot), now_ms)
    shut = state.shut
    left_s = None if shut is None else (shut.until_ms - now_ms) / 1000
    return {
        "name": state.name,
        "nova": state.nova or None,
        "state": "on" if shut is None else "shut_off",
        "last_minute": sum(now_ms - WINDOW_MS < at <= now_ms for at in state.runs),
        "executions": state.executions,
        "shut_offs": state.shut_offs,
        "seen_at": state.seen_at or None,
        "until": None if left_s is None else iso(wall_s + left_s),
        "left_s": left_s,
        "kind": None if shut is None else shut.kind,
        "reason": None if shut is None else shut.reason,
        "last_reason": None if state.last is None else state.last.reason,
    }


def _why(row: dict[str, Any]) -> str | None:
    if row["state"] == "shut_off":
        return f"{duration(row['left_s'])} more: {row['reason']}"
    reason: str | None = row.get("reason")
    return reason


def reset(
    call: Invocation,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="One hook; without it, all.")
    ] = None,
) -> None:
    """Forget what is known of a hook, or of all: what was shut off may run again.

    Also for state that cannot be read.
    """
    files = _files(call)
    wanted = None if name is None else _names(name)
    gone = []
    for path in files.paths():
        try:
            state = files.read(path)
            title = state.name if state is not None else path
        except CorruptState:
            title = path
        if wanted is None or title in wanted or path in wanted:
            files.reset(path)
            gone.append(title)
    if gone or name is None:
        home = hooks_home(str(call.home or ""), os.environ)  # noqa: TID251 - see hooks_home
        AuditLog(Path(home)).record(
            who=user_name(),
            action="hook.reset",
            target=name or "all",
            before=gone,
            after="forgotten",
        )
    if name is not None and not gone:
        raise NotFound(f"no hook {name} was run under guard: `novawf hook status` lists them")
    call.out.show({"reset": gone}, f"{counted(len(gone), 'hook')} begun anew")


def _names(name: str) -> set[str]:
    return {name, os.path.realpath(os.path.expanduser(name))}  # noqa: PTH111 - names are texts


def _files(call: Invocation) -> Any:
    from novawf.hooks.state_files import HookFiles  # noqa: PLC0415

    home = hooks_home(str(call.home or ""), os.environ)  # noqa: TID251 - see hooks_home
    return HookFiles(home)
