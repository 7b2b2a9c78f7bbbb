"""Entry point of the console script. `novawf hook run` leaves by a way of its own, past typer.

A hook's guard runs each time an agent uses a tool: what it imports is paid for every time, and the
command line takes 150 ms to put together. All else goes to `main`.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from novawf.hooks.guard import Order
    from novawf.hooks.state import HookState

WRONG_USAGE = 2
NO_VERDICT = 75
"""Instead of 2 for `novawf hook run`: an agent would take 2 for the hook's own "block", or of a
stop hook for "go on", for ever."""


def run() -> None:
    """Run the command line of this process."""
    environ = os.environ  # noqa: TID251 - handed on; the settings module takes 100 ms to import
    if (order := guarded(sys.argv[1:], environ)) is not None:
        sys.exit(run_guarded(order, environ))
    from novawf.cli.main import run as run_main  # noqa: PLC0415 - see the module's docstring

    try:
        run_main()
    except SystemExit as leaving:
        if leaving.code == WRONG_USAGE and _split(sys.argv[1:])[0][:2] == ["hook", "run"]:
            sys.exit(NO_VERDICT)
        raise


def guarded(argv: Sequence[str], environ: Mapping[str, str]) -> Order | None:
    """What `novawf hook run … -- CMD` asks for; None for all else, wrong usage included, which the
    command line proper explains."""
    if "--" not in argv or "hook" not in argv:
        return None
    end = argv.index("--")
    flags, command = list(argv[:end]), list(argv[end + 1 :])
    words, given = _split(flags)
    if words != ["hook", "run"] or not command:
        return None
    from novawf.hooks.guard import Order  # noqa: PLC0415

    order = Order(command, hooks_home(given.pop("--home", ""), environ))
    try:
        order.name = given.pop("--name", "")
        order.timeout_s = float(given.pop("--timeout", order.timeout_s))
        order.cooldown_s = float(given.pop("--cooldown", order.cooldown_s))
        order.limit = int(given.pop("--limit", order.limit))
        order.refused_exit = int(given.pop("--refused-exit", order.refused_exit))
    except ValueError:
        return None
    return order if not given and order.valid() else None


def _split(flags: list[str]) -> tuple[list[str], dict[str, str]]:
    """Words and options with their values."""
    words: list[str] = []
    given: dict[str, str] = {}
    at = 0
    while at < len(flags):
        name, equals, value = flags[at].partition("=")
        at += 1
        if name == "--json":
            continue
        if not name.startswith("-"):
            words.append(flags[at - 1])
        elif equals:
            given[name] = value
        elif at < len(flags):
            given[name] = flags[at]
            at += 1
        else:
            given[name] = ""
    return words, given


def hooks_home(given: str, environ: Mapping[str, str]) -> str:
    """The home in which hooks are kept: `--home`, $NOVAWF_HOME, else `~/.novawf`.

    No `novawf.toml` is asked: hooks run wherever an agent works, and one hook is one hook.
    """
    home = given or environ.get("NOVAWF_HOME") or environ.get("NOVAWF_FLEET__HOME") or "~/.novawf"
    return os.path.abspath(os.path.expanduser(home))  # noqa: PTH100, PTH111 - see the docstring


def run_guarded(order: Order, environ: Mapping[str, str]) -> int:
    """Run a hook; answers the exit code."""
    from pathlib import Path  # noqa: PLC0415

    from novawf.hooks.guard import run_hook  # noqa: PLC0415

    def report(state: HookState) -> None:
        from novawf.hooks.reporting import report_shut_off  # noqa: PLC0415

        report_shut_off(state, order.home, environ)

    def record(
        action: str, subject: str, before: Mapping[str, Any], after: Mapping[str, Any], why: str
    ) -> None:
        from novawf.audit.log import AuditLog  # noqa: PLC0415 - a hook is shut off rarely

        AuditLog(Path(order.home)).record(
            who=f"hook {subject}", action=action, target=subject,
            before=before, after=after, why=why,
        )  # fmt: skip

    return run_hook(order, environ, record=record, report=report)


if __name__ == "__main__":
    run()
