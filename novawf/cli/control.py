"""Commands that halt work and let it go on: `stop-all`, `clear-stop`, `pause`, `resume`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from novawf import ids
from novawf.audit.log import user_name
from novawf.cli.command import Invocation, command
from novawf.clock import iso
from novawf.errors import UserError

if TYPE_CHECKING:
    from novawf.client import Fleet

_NovaName = Annotated[
    str | None, typer.Argument(metavar="[NOVA]", help="Name of a Nova; without it, the fleet.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(
        app,
        "stop-all",
        'novawf stop-all --reason "API key leaked"',
        "novawf stop-all --reason drill --json | jq .acknowledged_at",
    )(stop_all)
    command(app, "clear-stop", "novawf clear-stop")(clear_stop)
    command(app, "pause", "novawf pause torch", "novawf pause  # the whole fleet")(pause)
    command(app, "resume", "novawf resume torch", "novawf resume  # the whole fleet")(resume)


async def stop_all(
    call: Invocation,
    reason: Annotated[str, typer.Option(help="Why; shown wherever work waits for the stop.")],
) -> None:
    """Emergency stop: from `acknowledged_at` (unix seconds) on no task starts, work is ended."""
    if not reason.strip():
        raise UserError("--reason: is empty: say why, for whoever finds the fleet stopped")
    async with call.fleet() as fleet:
        at_s = await fleet.stop_all(" ".join(reason.split()), by=who())
    call.out.show(
        {"acknowledged_at": at_s},
        f"acknowledged_at {at_s:.3f} ({iso(at_s)})",
        "`novawf clear-stop` lets the fleet go on",
    )


async def clear_stop(call: Invocation) -> None:
    """End the emergency stop."""
    async with call.fleet() as fleet:
        cleared = await fleet.clear_stop(by=who())
        said = await _goes_on(fleet, None, "the emergency stop is over")
    call.out.show({"cleared": cleared}, said if cleared else "the fleet was not stopped")


async def pause(call: Invocation, nova: _NovaName = None) -> None:
    """Let one Nova, or all, start nothing more; work in hand goes on."""
    _check_name(nova)
    async with call.fleet() as fleet:
        changed = await fleet.pause(nova)
    said = "paused" if changed else "was paused already"
    call.out.show({"nova": nova, "paused": True, "changed": changed}, f"{_whom(nova)} {said}")


async def resume(call: Invocation, nova: _NovaName = None) -> None:
    """End the pause of one Nova, or of the fleet, or the quarantine of a Nova.

    A Nova paused by name stays so until named. What is quarantined is started again.
    """
    _check_name(nova)
    async with call.fleet() as fleet:
        changed = await fleet.resume(nova)
        said = await _goes_on(fleet, nova, f"the pause of {_whom(nova)} is over")
    if not changed:
        said = f"{_whom(nova)} was neither paused nor quarantined"
    call.out.show({"nova": nova, "paused": False, "changed": changed}, said)


async def _goes_on(fleet: Fleet, nova: str | None, ended: str) -> str:
    """That work goes on; or, where something else was halted by hand too, only what has ended."""
    document = await fleet.status()
    halted = document["fleet"]
    if halted["stop"] is not None:
        return f"{ended}; the fleet is still stopped: `novawf clear-stop`"
    if halted["paused"]:
        return f"{ended}; the fleet is still paused: `novawf resume`"
    return f"{_whom(nova)} goes on"


def who() -> str:
    """The user of this command, for the record."""
    return user_name()


def _whom(nova: str | None) -> str:
    return "the fleet" if nova is None else nova


def _check_name(nova: str | None) -> None:
    if nova is not None and not ids.valid_nova_name(nova):
        raise UserError(
            f"nova: {nova!r} is no Nova name: a-z, 0-9, _ and -, up to 32, first a letter"
        )
