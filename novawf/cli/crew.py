"""Commands that change who belongs to a running fleet: `add`, `remove`, `scale`, `restart`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.control import who
from novawf.errors import UserError

_Novas = Annotated[list[str], typer.Argument(metavar="NOVA…", help="Names of Novas.")]
_Limit = Annotated[
    float | None,
    typer.Option(
        "--limit",
        min=0,
        metavar="S",
        help="Seconds for the task in hand; then it is ended and handed back (default: an hour).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(app, "add", "novawf add vaeris synergy")(add)
    command(app, "remove", "novawf remove vaeris", "novawf remove vaeris --limit 30")(remove)
    command(app, "scale", "novawf scale 10", "novawf scale torch echo helix")(scale)
    command(app, "restart", "novawf restart --rolling", "novawf restart torch")(restart)


async def add(call: Invocation, novas: _Novas) -> None:
    """Let Novas join the running fleet; those that are in it stay as they are."""
    async with call.fleet() as fleet:
        done = await fleet.crew(who()).add(novas, _progress(call))
    joined = done["added"]
    call.out.show(
        done, f"joined: {', '.join(joined)}" if joined else "all are in the fleet already"
    )


async def remove(call: Invocation, novas: _Novas, limit: _Limit = None) -> None:
    """Let Novas leave, each after the task it has in hand."""
    async with call.fleet() as fleet:
        done = await fleet.crew(who()).remove(novas, _progress(call), limit_s=limit)
    call.out.show(done, f"left: {', '.join(done['removed'])}")


async def scale(
    call: Invocation,
    to: Annotated[
        list[str], typer.Argument(metavar="N|NOVA…", help="How many, or the names of all.")
    ],
) -> None:
    """Have so many Novas, or just these: others join, and leave after the task in hand."""
    wanted: int | list[str] = int(to[0]) if len(to) == 1 and to[0].isdigit() else to
    async with call.fleet() as fleet:
        done = await fleet.crew(who()).scale(wanted, _progress(call))
    call.out.show(
        done,
        *(f"{word}: {', '.join(done[key])}" for key, word in _CHANGES if done[key]),
        f"the fleet has {len(done['novas'])}: {', '.join(done['novas'])}",
    )


async def restart(
    call: Invocation,
    novas: Annotated[
        list[str] | None, typer.Argument(metavar="[NOVA…]", help="Names; without them, all.")
    ] = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="All Novas; needed when none is named.")
    ] = False,
    limit: _Limit = None,
) -> int | None:
    """Start Novas anew one after the other, each after the task in hand: for a new version."""
    if not novas and not rolling:
        raise UserError("restart: name Novas, or give --rolling for all of them")
    if novas and rolling:
        raise UserError("restart: --rolling means all Novas; name some, or give --rolling")
    async with call.fleet() as fleet:
        done = await fleet.crew(who()).restart(novas or [], _progress(call), limit_s=limit)
    lines = [f"started anew: {', '.join(done['restarted'])}"] if done["restarted"] else []
    if done["failed"]:
        lines.append(f"does not come back, so the rest was left as it is: {done['failed'][0]}")
    call.out.show(done, *lines)
    return 1 if done["failed"] else None


_CHANGES = (("added", "joined"), ("removed", "left"))
_SAYS = {
    "leaving": "{} leaves when its task has ended",
    "restarting": "{} is started anew when its task has ended",
    "waiting": "waiting {}",
}


def _progress(call: Invocation) -> Callable[[dict[str, Any]], None]:
    """Tell people what goes on: an order may take as long as a task."""

    def tell(answer: dict[str, Any]) -> None:
        for key, text in _SAYS.items():
            if key in answer:
                call.out.note(text.format(answer[key]))

    return tell
