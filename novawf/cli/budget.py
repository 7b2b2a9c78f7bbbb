"""`novawf budget [settle|repair]`: what was spent, and putting it right."""

from __future__ import annotations

import asyncio
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
from novawf.cli.output import counted, printable, table

_EXAMPLES = (
    "novawf budget",
    "novawf budget --json | jq '.budgets[] | select(.left != null)'",
    'novawf budget settle 4f1c… --usd 0.31 --evidence "the provider\'s usage page"',
    "novawf budget repair        # shows what is broken",
    "novawf budget repair --yes  # mends it",
)


def register(app: typer.Typer) -> None:
    """Add the group of commands to `app`."""
    group = typer.Typer(rich_markup_mode=None, add_completion=False)
    group.callback(invoke_without_command=True, epilog=example_text(_EXAMPLES))(budget)
    command(group, "settle", _EXAMPLES[2])(settle)
    command(group, "repair", *_EXAMPLES[3:])(repair)
    app.add_typer(group, name="budget", short_help="Show what is spent and left of each budget")


def budget(
    ctx: typer.Context,
    home: HomeOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show what is spent, reserved and left of each budget, and calls that nobody confirmed."""
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    ctx.obj = call = before.merged(home, store, json)
    if ctx.invoked_subcommand is None:
        asyncio.run(_show(call))


async def _show(call: Invocation) -> None:
    async with call.fleet() as fleet:
        document = await fleet.budget()
    call.out.show(document, *budget_lines(document))


async def settle(
    call: Invocation,
    reservation: Annotated[
        str, typer.Argument(metavar="ID", help="An unconfirmed reservation, of `novawf budget`.")
    ],
    usd: Annotated[float, typer.Option(metavar="X", help="What the call cost; 0: never made.")],
    evidence: Annotated[
        str, typer.Option(metavar="TEXT", help="How that is known; kept with the figure.")
    ],
    tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Its tokens; as reserved unless given.")
    ] = None,
) -> None:
    """Put right what a call counts for whose caller died before it could tell."""
    async with call.fleet() as fleet:
        after = await fleet.settle_budget(reservation, usd, evidence=evidence, tokens=tokens)
    call.out.show(
        after,
        f"{after['id']} counts for {_usd(after['usd'])} USD and {after['tokens']:,} tokens "
        f"(reserved were {_usd(after['was_usd'])} USD)",
    )


async def repair(
    call: Invocation,
    yes: Annotated[bool, typer.Option("--yes", help="Mend it; else it is only shown.")] = False,
) -> int:
    """Show what is broken of the budgets in the store, and mend it: never below what is known."""
    async with call.fleet() as fleet:
        found = await fleet.repair_budget(apply=yes)
        left = await fleet.repair_budget() if yes else found
    lines = [
        table(
            ("KEY", "FIELD", "HOLDS", "WHAT"),
            [(one["key"], one["field"], one["holds"], one["why"]) for one in found],
        )
    ]
    if not found:
        said = "the budgets in the store are whole"
    elif not yes:
        said = f"{counted(len(found), 'fault')}; `novawf budget repair --yes` mends them"
    else:
        mended = sum(one["mended"] for one in found)
        said = f"{counted(mended, 'fault')} mended" + (f", {len(left)} left" if left else "")
    call.out.show({"faults": found, "left": len(left)}, *(lines if found else []), said)
    return 1 if left else 0


def budget_lines(document: dict[str, Any]) -> list[str]:
    """The budgets for people."""
    rows = [
        (
            row["name"] or row["scope"],
            row["window"],
            _amount(row, "spent"),
            _amount(row, "reserved"),
            _amount(row, "cap"),
            _amount(row, "left"),
            (row["frees_at"] or "")[:19].replace("T", " "),
        )
        for row in document["budgets"]
    ]
    if not rows:
        return ["nothing was spent, and no budget is set ([budget] in novawf.toml)"]
    lines = [
        table(("BUDGET", "WINDOW", "SPENT", "RESERVED", "CAP", "LEFT", "FREES AT (UTC)"), rows)
    ]
    lines += ["", *(one["why"] for one in document["exhausted"])] if document["exhausted"] else []
    if document["unconfirmed_total"]:
        number = counted(document["unconfirmed_total"], "call")
        lines += [
            "",
            f"{number} that nobody confirmed, counted as reserved (`novawf budget settle`):",
            table(
                ("RESERVATION", "SINCE", "USD", "TOKENS", "NOVA", "PROVIDER", "TASK"),
                [
                    (
                        one["id"],
                        one["at"][:19].replace("T", " "),
                        _usd(one["usd"]),
                        f"{one['tokens']:,}",
                        one["nova"],
                        one["provider"],
                        one["task"],
                    )
                    for one in document["unconfirmed"]
                ],
            ),
        ]
    return lines


def _amount(row: dict[str, Any], part: str) -> str | None:
    value = row[part]
    if value is None:
        return None
    return f"{_usd(value)} USD" if row["unit"] == "usd" else f"{value:,} tokens"


def _usd(usd: float) -> str:
    whole, _, fraction = f"{usd:,.6f}".partition(".")
    return printable(f"{whole}.{fraction.rstrip('0').ljust(2, '0')}")
