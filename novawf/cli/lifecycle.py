"""Commands that start and end a fleet: `up`, `down`. The supervisor does the work."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from novawf.cli.command import Invocation, command
from novawf.clock import monotonic_s
from novawf.errors import FleetNotRunning, Internal, Refused

if TYPE_CHECKING:
    from novawf.cli.output import Output

SECOND_SIGNAL_AFTER_S = 0.2
"""Two signals of one kind at once are one: the second waits until the first is taken."""

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    app.command(
        "up",
        context_settings=_PASS_ON,
        add_help_option=False,
        short_help="Start a fleet; `novawf up --help` shows its flags",
    )(up)
    command(app, "down", "novawf down", "novawf down --now", "novawf down --timeout 300")(down)


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
        float, typer.Option(min=0, metavar="S", help="How long to wait for its end.")
    ] = 60.0,
    now: Annotated[
        bool, typer.Option("--now", help="End work in hand instead of letting it finish.")
    ] = False,
) -> None:
    """Stop the fleet of this home: work in hand is finished or handed back, nothing is lost."""
    from novawf.processes.finding import find_fleet  # noqa: PLC0415 - see the package's docstring

    home = call.place().home
    pid = int(find_fleet(home)["pid"])
    began_s = monotonic_s()
    process = _pin(home, pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if now and not _ended(process, SECOND_SIGNAL_AFTER_S):
            signal.pidfd_send_signal(process, signal.SIGTERM)
        _await_end(process, pid, timeout, call.out)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile, which is what was asked for
    finally:
        os.close(process)
    took_s = monotonic_s() - began_s
    call.out.show(
        {"stopped": True, "pid": pid, "took_s": round(took_s, 3)},
        f"the fleet at {home} has ended (supervisor {pid}, {took_s:.1f} s)",
    )


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


def _await_end(process: int, pid: int, timeout_s: float, out: Output) -> None:
    """Wait for the process to end. Raises Refused after `timeout_s`."""
    began_s = monotonic_s()
    while (waited_s := monotonic_s() - began_s) < timeout_s:
        out.progress(f"waiting for supervisor {pid} to end: {waited_s:.0f} s")
        if _ended(process, min(1.0, timeout_s - waited_s)):
            out.progress("")
            return
    out.progress("")
    if not _ended(process, 0):
        raise Refused(
            f"the supervisor (pid {pid}) has not ended within {timeout_s:g} s and goes on "
            "draining: wait longer (--timeout), or `novawf down --now`"
        )


def _ended(process: int, wait_s: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))
