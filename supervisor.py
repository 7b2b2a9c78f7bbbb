"""`python supervisor.py`: flags to settings to the fleet; nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from novawf.cli.run import run_app

app = typer.Typer(add_completion=False, rich_markup_mode=None)

EXAMPLES = """
Start Novas and keep them working until Ctrl-C (a second Ctrl-C ends at once).

\b
Examples:
  python supervisor.py --novas torch,echo,helix
  python supervisor.py --home ./fleet --pace 0 --until-idle
  python supervisor.py --store rediss://fleet@store.example:18000/0 --config novawf.toml
"""


@app.command(help=EXAMPLES)
def up(
    novas: Annotated[
        str | None, typer.Option(help="Names of the Novas, comma separated.", metavar="A,B,C")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Directory of this fleet [$NOVAWF_HOME or ~/.novawf].")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="redis://, rediss:// or unix:// URL [an embedded valkey].")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="A running Ray cluster: HOST:PORT of its GCS, or auto [a Ray of its own].",
            metavar="ADDR",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings [./novawf.toml, HOME/novawf.toml].")
    ] = None,
    pace: Annotated[
        float | None, typer.Option(help="Factor on every pause; 0 removes them [1].")
    ] = None,
    momentum: Annotated[
        str | None,
        typer.Option(help="on or off: built-in jobs for Novas that have nothing to do [on]."),
    ] = None,
    spares: Annotated[
        int | None,
        typer.Option(help="Standby Novas, which take over a dead one's name at once [0]."),
    ] = None,
    drain_limit: Annotated[
        float | None,
        typer.Option(min=0, metavar="S", help="Time for work in hand when the fleet ends [4]."),
    ] = None,
    until_idle: Annotated[
        bool,
        typer.Option(
            "--until-idle",
            help="Drain what is queued, then exit: 0, or 1 when a task ended blocked.",
        ),
    ] = False,
    no_console: Annotated[
        bool, typer.Option("--no-console", help="No web console (there is none yet).")
    ] = False,
    console_port: Annotated[
        int | None, typer.Option(help="Port of the web console (there is none yet).")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics [9464].")] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="JSON lines even on a terminal.")
    ] = False,
) -> None:
    from novawf.settings import environment, load_settings, service_manager  # noqa: PLC0415 - after --help

    if momentum not in (None, "on", "off"):
        raise typer.BadParameter(f"--momentum is on or off, not {momentum!r}")
    overrides: dict[str, Any] = {
        "fleet.novas": None if novas is None else tuple(name.strip() for name in novas.split(",")),
        "fleet.home": home,
        "fleet.pace": pace,
        "store.url": store,
        "ray.address": ray_address,
        "metrics.port": metrics_port,
        "supervision.spares": spares,
        "supervision.drain_s": drain_limit,
        "work.momentum": None if momentum is None else momentum == "on",
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    settings = load_settings(config, given)

    from actors.fleet import Fleet  # noqa: PLC0415 - Ray takes a second
    from novawf.cli.live import make_announcer  # noqa: PLC0415
    from novawf.processes.notify import Notifier  # noqa: PLC0415

    announcer = make_announcer(sys.stdout, sys.stdout.isatty() and not json_lines)
    manager = Notifier.of(service_manager(), os.getpid())
    fleet = Fleet(settings, announcer, environment(), until_idle=until_idle, notifier=manager)
    raise typer.Exit(fleet.run())


def main() -> None:
    """Entry point."""
    sys.exit(run_app(app, "supervisor"))


if __name__ == "__main__":
    main()
