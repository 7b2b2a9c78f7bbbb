"""Commands that start and end a fleet: `up`, `down`. The supervisor does the work."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novawf.audit.log import AuditLog, user_name
from novawf.cli.command import Invocation, command
from novawf.clock import monotonic_s
from novawf.errors import FleetNotRunning, Internal, Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from novawf.cli.output import Output

SECOND_SIGNAL_AFTER_S = 0.2
"""Two signals of one kind at once are one: the second waits until the first is taken."""

LOOK_S = 0.5
"""How often it is looked what the end waits for."""

LONGER_S = 60.0
"""How much longer than its own limits a fleet may take to end, on a busy machine."""

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(
        "up",
        context_settings=_PASS_ON,
        add_help_option=False,
        short_help="Start a fleet; `novawf up --help` shows its flags",
    )(up)
    command(app, "down", "novawf down", "novawf down --now", "novawf down --drain-limit 300")(down)


def up(ctx: typer.Context) -> None:
    """Start a fleet and keep it working until Ctrl-C; `novawf up --help` shows its flags.

    This process becomes the supervisor, so its signals and its exit code are the supervisor's.
    """
    before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
    given: list[str] = []
    if before.home is not None:
        given += ["--home", str(before.home)]
    if before.store is not None:
        given += ["--store", before.store]
    if before.json:
        given.append("--json")
    program = supervisor_path()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(program), *given, *ctx.args])  # noqa: S606


def supervisor_path() -> Path:
    """The supervisor that was installed with this package, whatever the current directory holds."""
    import novawf  # noqa: PLC0415 - its own file is what is wanted

    path = Path(novawf.__file__).resolve().parent.parent / "supervisor.py"
    if not path.is_file():
        raise Internal(f"{path} is missing: install novawf again")
    return path


def down(
    call: Invocation,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="How long to wait for its end [the limits, + 60]."),
    ] = None,
    drain_limit: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Time for work in hand; 0 hands it back at once [as set]."
        ),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="End work in hand instead of letting it finish.")
    ] = False,
) -> None:
    """Stop the fleet of this home: work in hand is finished or handed back, nothing is lost."""
    from novawf.processes.drain_order import order_drain  # noqa: PLC0415 - see the package
    from novawf.processes.finding import find_fleet  # noqa: PLC0415

    if now and drain_limit is not None:
        raise typer.BadParameter("--now leaves work in hand no time: leave --drain-limit out")
    home = call.place().home
    fleet = find_fleet(home)
    pid = int(fleet["pid"])
    limits_s = _limits_s(fleet, drain_limit)
    began_s = monotonic_s()
    process = _pin(home, pid)
    watch = _Watch(home, pid, call.out)
    try:
        if drain_limit is not None:
            order_drain(home, pid, drain_limit)
        if fleet.get("draining") is None:  # else a signal more would end it at once
            signal.pidfd_send_signal(process, signal.SIGTERM)
        if now and not _ended(process, SECOND_SIGNAL_AFTER_S):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        AuditLog(home).record(
            who=user_name(),
            action="fleet.down",
            target=str(home),
            after={"pid": pid, "now": now, "drain_limit_s": drain_limit},
        )
        watch.until_ended(process, limits_s + LONGER_S if timeout is None else timeout)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile, which is what was asked for
    finally:
        os.close(process)
    took_s = monotonic_s() - began_s
    call.out.show(
        {
            "stopped": True,
            "pid": pid,
            "took_s": round(took_s, 3),
            "waited_for": {name: round(s, 1) for name, s in watch.waited_s.items()},
        },
        f"the fleet at {home} has ended (supervisor {pid}, {took_s:.1f} s)",
    )


def _limits_s(fleet: Mapping[str, Any], ordered_s: float | None) -> float:
    """How long the fleet may take by its own limits, the end of Ray and the store aside."""
    draining = fleet.get("draining") or {}
    drain_s = draining.get("limit_s", fleet.get("drain_s", 0.0)) if ordered_s is None else ordered_s
    return float(drain_s) + float(fleet.get("shutdown_s", 0.0))


def _pin(home: Path, pid: int) -> int:
    """A pidfd of the very process that holds the home's lock. Raises FleetNotRunning.

    Pinned first and confirmed after: should the pid have changed hands, the lock tells.
    """
    from novawf.processes.finding import supervisor_holds  # noqa: PLC0415 - see the package's docstring
    from novawf.processes.home import lock_holder  # noqa: PLC0415

    gone = FleetNotRunning(f"no fleet runs at {home}: it has just ended")
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        raise gone from None
    if lock_holder(home) != str(pid) or not supervisor_holds(home):
        os.close(process)
        raise gone
    return process


class _Watch:
    """Waits for the end of a supervisor, and tells what that waits for, by its own `fleet.json`."""

    def __init__(self, home: Path, pid: int, out: Output) -> None:
        self.home = home
        self.pid = pid
        self.out = out
        self.waited_s: dict[str, float] = {}
        """Nova → how long the end has waited for it."""
        self._told = ""

    def until_ended(self, process: int, timeout_s: float) -> None:
        """Raises Refused after `timeout_s`."""
        began_s = monotonic_s()
        while (waited_s := monotonic_s() - began_s) < timeout_s:
            self._tell(waited_s)
            if _ended(process, min(LOOK_S, timeout_s - waited_s)):
                self.out.progress("")
                return
        self.out.progress("")
        if not _ended(process, 0):
            left = self._left()
            raise Refused(
                f"the supervisor (pid {self.pid}) has not ended within {timeout_s:g} s"
                f"{f', it waits for {left}' if left else ''} and goes on draining: wait longer "
                "(--timeout), give work in hand less time (--drain-limit), or `novawf down --now`"
            )

    def _left(self) -> str:
        from novawf.processes.home import read_fleet_file  # noqa: PLC0415 - see the package

        draining = (read_fleet_file(self.home) or {}).get("draining") or {}
        return ", ".join(draining.get("waiting_for") or ())

    def _tell(self, waited_s: float) -> None:
        left = self._left()
        for name in left.split(", ") if left else ():
            self.waited_s[name] = waited_s
        what = left or f"supervisor {self.pid} to end"
        self.out.progress(f"waiting for {what}: {waited_s:.0f} s")
        if left and left != self._told and not self.out.shows_progress:
            self._told = left
            self.out.note(f"waiting for {left}")


def _ended(process: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))
