"""`novawf safety status|check|reset`: what the mechanisms say, whether they hold, repairs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from novawf.cli.command import (
    HomeOption,
    Invocation,
    JsonOption,
    StoreOption,
    command,
    example_text,
)
from novawf.cli.control import who
from novawf.cli.output import pairs, table

_EXAMPLES = (
    "novawf safety status",
    "novawf safety check --json | jq .ok",
    "novawf safety check --private",
    "novawf safety reset frosty",
)


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False)
    group.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(safety)
    command(group, "status", _EXAMPLES[0])(status)
    command(group, "check", *_EXAMPLES[1:3])(check)
    command(group, "reset", _EXAMPLES[3], "novawf safety reset all")(reset)
    app.add_typer(group, name="safety", short_help="Show, check and repair the safety mechanisms")


def safety(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show, check and repair the safety mechanisms."""
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    ctx.obj = before.merged(home, store, json)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


async def status(call: Invocation) -> None:
    """What each mechanism says, what it holds and until when, and violations so far."""
    async with call.fleet() as fleet:
        document = await fleet.safety()
    call.out.show(document, *status_lines(document))


async def check(
    call: Invocation,
    private: Annotated[
        bool,
        typer.Option("--private", help="Put a fleet of its own to the test, in a new directory."),
    ] = False,
) -> int:
    """Does safety hold? A table; exit code 1 when something does not.

    Of the running fleet it only reads: gate, mechanisms, limits, leases, counts, the audit's chain.
    A private fleet is stopped, corrupted and killed to see what happens.
    """
    found = await (_drill(call) if private else _self_check(call))
    rows = [
        (row["check"], "ok" if row["ok"] else "FAILED", "; ".join(row["found"]))
        for row in found["rows"]
    ]
    call.out.show(found, table(("CHECK", "RESULT", "FOUND"), rows))
    return 0 if found["ok"] else 1


async def _drill(call: Invocation) -> dict[str, Any]:
    from novawf.cli.safety_drill import run  # noqa: PLC0415

    rows = await run(lambda what: call.out.progress(f"safety check: {what}"))
    return {"ok": all(row["ok"] for row in rows), "rows": rows}


async def _self_check(call: Invocation) -> dict[str, Any]:
    from novawf.audit.chain import verify  # noqa: PLC0415
    from novawf.work.jobs.safety import safety_check  # noqa: PLC0415 - see the package's docstring
    from novawf.work.jobs.table import JobContext  # noqa: PLC0415

    async with call.fleet() as fleet:
        found = await safety_check(JobContext(fleet.redis, fleet.clock, ""), ())
        audit = fleet.home / "audit"
    if audit.is_dir():
        verdict = verify(audit)
        broken = [] if verdict.ok else ["its chain is broken: `novawf audit verify` says where"]
        found["rows"].append({"check": "audit", "ok": verdict.ok, "found": broken})
        found["ok"] = found["ok"] and verdict.ok
    return found


async def reset(
    call: Invocation,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A mechanism, `all`, or `gate`: that one comes back stopped."
        ),
    ],
) -> None:
    """Let a mechanism forget what it remembers: its cooldowns, counts and emergencies end."""
    async with call.fleet() as fleet:
        names = await fleet.reset_safety(name, by=who())
    said = (
        "the gate is replaced, and its emergency stop is on: `novawf clear-stop`"
        if names == ["gate"]
        else f"{', '.join(names)}: forgotten; the next verdict comes within seconds"
    )
    call.out.show({"reset": names}, said)


def status_lines(document: dict[str, Any]) -> list[str]:
    """The document for people."""
    said = "safe" if document["safe"] else document["action"]
    head = [("verdict", f"{said}: {document['reason'] or 'nobody has given one'}")]
    if not document["valid"]:
        head.append(("", "it has expired: nobody renews it, so nothing starts"))
    if document["until"]:
        head.append(("until", document["until"]))
    counted = ", ".join(f"{n} {kind}" for kind, n in document["violations"].items())
    head.append(("violations", counted or "none"))
    rows = [
        (
            row["name"],
            "safe" if row["is_safe"] else row["recommended_action"],
            row["until"] or "",
            row["reason"],
        )
        for row in document["mechanisms"]
    ]
    lines = [pairs(head), "", table(("MECHANISM", "SAYS", "UNTIL", "WHY"), rows)]
    if document["holds"]:
        held = [
            (nova, hold["action"], hold["until"] or "", hold["reason"])
            for nova, hold in document["holds"].items()
        ]
        lines += ["", table(("NOVA", "HELD", "UNTIL", "WHY"), held)]
    return lines
