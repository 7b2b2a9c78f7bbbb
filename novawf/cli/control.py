"""Commands that halt work and let it go on: `stop-all`, `clear-stop`, `pause`, `resume`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from novawf import ids
from novawf.audit.log import user_name
from novawf.cli.command import Invocation, command
from novawf.clock import iso, monotonic_s
from novawf.errors import UserError

if TYPE_CHECKING:
    from novawf.client import Fleet

_END_S = 5.0
"""Longest wait for the end of what a silent Nova runs."""

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
        "novawf stop-all --reason maintenance --drain --wait",
    )(stop_all)
    command(app, "clear-stop", "novawf clear-stop")(clear_stop)
    command(app, "pause", "novawf pause torch", "novawf pause  # the whole fleet")(pause)
    command(app, "resume", "novawf resume torch", "novawf resume  # the whole fleet")(resume)


async def stop_all(
    call: Invocation,
    reason: Annotated[str, typer.Option(help="Why; shown wherever work waits for the stop.")],
    drain: Annotated[bool, typer.Option("--drain", help="Let running work finish.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until nothing runs any more.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.0, help="With --wait: at most so many seconds.")
    ] = None,
) -> int:
    """Emergency stop: from `acknowledged_at` (unix seconds) on no task starts, work is ended.

    A later stop without --drain ends what an earlier one lets finish. With --wait, exit 1 when
    something still runs after --timeout.
    """
    if not reason.strip():
        raise UserError("--reason: is empty: say why, for whoever finds the fleet stopped")
    if timeout is not None and not wait:
        raise UserError("--timeout: is for --wait: without it nothing is waited for")
    began_s, code = monotonic_s(), 0
    async with call.fleet() as fleet:
        stop = await fleet.emergency_stop(" ".join(reason.split()), who(), drain)
        said = stop.acknowledged
        if not stop.shut.drains and said.stamps:
            await _end_of_silent(fleet, said.stamps)
        document = {
            "acknowledged_at": said.at_s,
            "drains": stop.shut.drains,
            "silent": list(said.silent),
        }
        lines = [f"acknowledged_at {said.at_s:.3f} ({iso(said.at_s)})"]
        if said.silent:
            lines.append(
                f"{', '.join(said.silent)} did not answer; what was claimed there can begin no "
                "more, as its time to begin is over"
            )
        if wait:
            idle = await fleet.nothing_runs(timeout)
            took_s = monotonic_s() - began_s
            document |= {"idle": idle, "waited_s": round(took_s, 3)}
            lines.append(
                f"nothing runs any more, after {took_s:.1f} s"
                if idle
                else f"work still runs after {took_s:.1f} s: `novawf tasks --status in_progress`"
            )
            if not idle:
                code = 1
    lines.append("`novawf clear-stop` lets the fleet go on")
    call.out.show(document, *lines)
    return code


async def _end_of_silent(fleet: Fleet, stamps: Iterable[str]) -> None:
    """End what Novas run that do not answer: they do not hear that they should. Where the keepers
    are not this machine's, it ends with its lease."""
    from novawf.errors import ExecutorLost  # noqa: PLC0415 - see the package's docstring
    from novawf.processes.home import read_fleet_file  # noqa: PLC0415
    from novawf.processes.keeper import KeeperClient  # noqa: PLC0415

    document = read_fleet_file(fleet.home)
    if document is None or document.get("store_url") != fleet.address.redacted():
        return  # those are another fleet's keepers, which may know the same stamps
    keepers = KeeperClient(fleet.home / "run" / "keeper.sock")
    for stamp in stamps:
        with contextlib.suppress(ExecutorLost):
            await keepers.end(stamp, _END_S)


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
