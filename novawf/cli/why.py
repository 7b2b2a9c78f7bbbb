"""The command `why`: one sentence about whatever waits, and what would release it.

It answers as long as anything can be read: a fleet that was killed leaves a store behind, and that
nothing is in reach is an answer too (with exit code 3).
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.output import printable
from novawf.errors import FleetNotRunning, NotFound, NovawfError, StoreUnreachable

_Subject = Annotated[
    str | None,
    typer.Argument(
        metavar="[NOVA|TASK]", help="Name of a Nova or id of a task; without it, the fleet."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module to `app`."""
    command(
        app,
        "why",
        "novawf why",
        "novawf why torch",
        "novawf why TORCH-1760000000-00002a --json | jq -r .released_by",
    )(why)


async def why(call: Invocation, subject: _Subject = None) -> int:
    """Say why a task, a Nova or the fleet waits, and what would release it."""
    document, code = await _answer(call, subject)
    call.out.show(document, *_lines(document))
    return code


async def _answer(call: Invocation, subject: str | None) -> tuple[dict[str, Any], int]:
    from novawf.client import Fleet  # noqa: PLC0415 - see the package's docstring
    from novawf.processes.finding import last_store, supervisor_holds  # noqa: PLC0415
    from novawf.why.answering import out_of_reach  # noqa: PLC0415
    from novawf.why.explanation import Explanation  # noqa: PLC0415

    place = call.place()
    store = place.store or last_store(place.home)
    try:
        async with Fleet.connect(home=place.home, store=store) as fleet:
            return await fleet.why(subject), 0
    except NotFound as error:
        raise NovawfError(str(error)) from None
    except StoreUnreachable as error:
        if place.store is not None or supervisor_holds(place.home):
            said = Explanation("store_down", str(error), "the store answers again")
        else:
            said = _nobody(f"no fleet runs at {place.home}, and the store of the last is away")
    except FleetNotRunning:
        said = _nobody(f"no fleet runs at {place.home}")
    return out_of_reach(subject, said), 3


def _nobody(said: str) -> Any:
    from novawf.why.explanation import Explanation  # noqa: PLC0415

    return Explanation(
        "no_fleet",
        f"{said}: nothing can start, and what waits cannot be read",
        "`novawf up` starts one, with all that was queued",
    )


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [printable(document["sentence"])]
    if document["released_by"]:
        lines.append(f"released by: {printable(document['released_by'])}")
    reasons = document["details"].get("reasons", [])
    if len(reasons) > 1:
        lines += [f"{reason['count']:>7,}  {printable(reason['sentence'])}" for reason in reasons]
    return lines
