"""Commands that show the fleet: `status`, `limits`, `store-url`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.output import duration, pairs, table
from novawf.clock import parse_iso


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(
        app,
        "status",
        "novawf status",
        "novawf status --json | jq '.novas[] | {id, state}'",
        "novawf status --store redis://:secret@db.example:18000/0",
    )(status)
    command(
        app,
        "limits",
        "novawf limits",
        "novawf limits --json | jq '.breakers'",
        "novawf limits --reset anthropic/alice",
    )(limits)
    command(
        app,
        "store-url",
        "novawf store-url",
        'redis-cli -u "$(novawf store-url)" ping  # a store by URL',
        "redis-cli -s ~/.novawf/store/valkey.sock ping  # the embedded one",
    )(store_url)


async def status(call: Invocation) -> None:
    """Show the fleet: its Novas, what they do, its store, tasks and limits."""
    async with call.fleet() as fleet:
        document = await fleet.status()
        now_s = fleet.clock.wall_s()
    if call.json:
        call.out.show(document)
    else:
        call.out.show(document, *status_lines(document, now_s))


async def limits(
    call: Invocation,
    reset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Close the breaker of NAME's upstream, and forget what its provider said.",
        ),
    ] = None,
) -> None:
    """Show what is left of the API limits, which hold for the whole fleet."""
    async with call.fleet() as fleet:
        if reset is not None:
            await fleet.reset_limit(reset)
        document = await fleet.limits()
        now_s = fleet.clock.wall_s()
    call.out.show(document, *limit_lines(document, now_s))


async def store_url(call: Invocation) -> None:
    """Print the store's URL with its credentials: do not paste it where others read."""
    async with call.fleet() as fleet:
        url = fleet.address.url()
    call.out.show({"store_url": url}, url, as_it_is=True)  # it is what was asked for


def limit_lines(document: dict[str, Any], now_s: float) -> list[str]:
    """The limits for people."""
    head = [
        ("this minute", f"{document['minute_left']} of {_per(document, 'minute')} left"),
        ("this hour", f"{document['hour_left']} of {_per(document, 'hour')} left"),
        ("in flight", f"{document['in_use']} of {document['concurrent']}"),
        ("next permit", _next_permit(document)),
        (
            "so far",
            f"{document['granted']} granted, {document['ok']} ok, "
            f"{document['failed']} failed, {document['expired']} never reported back, "
            f"{document['void']} unused",
        ),
    ]
    if document["unpermitted"]:
        head.append(("ALARM", f"{document['unpermitted']} requests were made without a permit"))
    lines = [pairs(head)]
    rows: list[tuple[Any, ...]]
    if document["named"]:
        rows = [
            (
                limit["name"],
                _of(limit["minute_left"], limit["requests_per_minute"]),
                _of(limit["hour_left"], limit["requests_per_hour"]),
                _of(limit["in_use"], limit["concurrent"]),
                _next_permit(limit),
            )
            for limit in document["named"]
        ]
        columns = ("LIMIT", "MINUTE LEFT", "HOUR LEFT", "IN FLIGHT", "NEXT PERMIT")
        lines += ["", table(columns, rows)]
    if document["breakers"]:
        rows = [
            (row["upstream"], row["state"], row.get("failures"), row.get("error") or row["until"])
            for row in document["breakers"]
        ]
        lines += ["", table(("UPSTREAM", "BREAKER", "FAILURES", "UNTIL"), rows)]
    if document["advice"]:
        rows = [(row["limit"] or "(fleet)", _advice(row)) for row in document["advice"]]
        lines += ["", table(("LIMIT", "ITS PROVIDER SAYS"), rows)]
    if document["waiting"]:
        rows = [
            (row["nova"], row["task"], duration(max(0.0, now_s - parse_iso(row["since"]))))
            for row in document["waiting"]
        ]
        lines += ["", table(("NOVA", "TASK", "WAITS FOR A PERMIT SINCE"), rows)]
    return lines


def _next_permit(limit: dict[str, Any]) -> str:
    if not limit["next_free_in_s"]:
        return "now"
    whose = f" of {limit['blocked_limit']}" if limit["blocked_limit"] else ""
    return f"in {limit['next_free_in_s']:.1f} s ({limit['blocked_by']}{whose})"


def _of(number: int, most: int | None) -> str:
    return "no bound" if most is None else f"{number} of {most}"


def _advice(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    said = []
    if row["blocked_until"]:
        said.append(f"nothing until {row['blocked_until']}")
    if row["gap_s"]:
        said.append(f"one in {row['gap_s']:g} s until {row['gap_until']}")
    return ", ".join(said)


def status_lines(document: dict[str, Any], now_s: float) -> list[str]:
    """The status for people."""
    fleet, store, tasks = document["fleet"], document["fleet"]["store"], document["tasks"]
    limits = document["limits"]
    window_s = store.get("loss_window_s")
    loss = "unknown or unbounded" if window_s is None else f"{window_s:g} s"
    known = fleet["started_at"] is not None
    head = [
        ("fleet", _fleet_text(fleet)),
        (
            "store",
            f"{store['backend']}, {store['persistence']}; a crash may lose: {loss}"
            if known
            else "known once a fleet has looked at it",
        ),
        (
            "tasks",
            f"{tasks['pending']} pending, {tasks['in_progress']} in progress, "
            f"{tasks['completed']} completed, {tasks['blocked']} blocked",
        ),
        (
            "limits",
            f"{limits['minute_left']} left this minute, {limits['hour_left']} this hour, "
            f"{limits['in_use']} of {limits['concurrent']} in flight",
        ),
    ]
    records = document["protocol"]
    if records["valid"] < records["all"]:
        broken = records["all"] - records["valid"]
        head.append(("protocol", f"{broken} of {records['all']} records break it: see compliance"))
    if fleet["held"]:
        why = fleet["why"]  # without a fleet, or before its first verdict, that is the news
        nobody_yet = why["reason"] in ("no_fleet", "starting")
        head.append(("waiting", why["sentence"] if nobody_yet else fleet["held"]))
    lines = [pairs(head)]
    if document["novas"]:
        lines += ["", table(_NOVA_COLUMNS, [_nova_row(nova, now_s) for nova in document["novas"]])]
    if document["actors"]:
        rows = [
            (actor["name"], "alive" if actor["alive"] else "gone", actor["pid"], actor["restarts"])
            for actor in document["actors"]
        ]
        lines += ["", table(("ACTOR", "PROCESS", "PID", "RESTARTS"), rows)]
    return lines


_NOVA_COLUMNS = ("NOVA", "STATE", "FOR", "HEALTH", "PID", "RESTARTS", "CYCLES", "TASK")


def _nova_row(nova: dict[str, Any], now_s: float) -> tuple[Any, ...]:
    since = nova["since"]
    task = " ".join(part for part in (nova["task"], nova["title"]) if part)
    return (
        nova["id"],
        nova["state"] + (" (paused)" if nova["paused"] else ""),
        duration(max(0.0, now_s - parse_iso(since))) if since else None,
        _health(nova),
        nova["pid"],
        nova["restarts"],
        nova["cycles"],
        task,
    )


def _health(nova: dict[str, Any]) -> str:
    if not nova["alive"]:
        return nova["cause"] or ("-" if nova["state"] == "starting" else "not alive")
    if not nova["listening"]:
        return "alive, silent"
    return "ok" if nova["progressing"] else "listening, no progress"


def _fleet_text(fleet: dict[str, Any]) -> str:
    if fleet["started_at"] is None:
        if fleet["why"]["reason"] == "starting":
            return "is starting"
        return "none runs with this store, or it is just starting"
    text = f"{fleet['state']} since {fleet['started_at']} (pid {fleet['pid']})"
    return f"{text}, PAUSED" if fleet["paused"] else text


def _per(limits: dict[str, Any], window: str) -> int:
    number: int = limits[f"requests_per_{window}"]
    return number
