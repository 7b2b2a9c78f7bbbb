"""`novawf doctor`: is everything there that a fleet needs, and if not, what to do about it.

Every check answers with one `Finding`; none changes anything. A check that cannot look says so
(`warn`); only what keeps a fleet from working counts as `fail`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.output import table
from novawf.errors import NovawfError, OutOfReach

if TYPE_CHECKING:
    from novawf.cli.environment import Place
    from novawf.client import Fleet

PYTHON = (3, 11)
FREE_DISK_WARN_BYTES = 1 << 30
FREE_DISK_FAIL_BYTES = 100 << 20
HTTP_TIMEOUT_S = 3.0


class Finding(NamedTuple):
    """What one check found."""

    check: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "doctor", "novawf doctor", "novawf doctor --json | jq '.checks[] | .result'")(
        doctor
    )


async def doctor(call: Invocation) -> int:
    """Check machine, home, store and fleet, and say what to do; exit 1 when something failed."""
    place = call.place()
    findings = [*_machine(), *_home(place.home)]
    running = _running(place)
    findings.append(_fleet_finding(place, running))
    if running is not None or place.store is not None:
        findings += await _store(call)
    if running is not None:
        findings += [_dashboard(running), _token(running)]
    failed = any(finding.result == "fail" for finding in findings)
    document = {"ok": not failed, "checks": [finding._asdict() for finding in findings]}
    rows = [(f.check, f.result, f.detail + (f": {f.advice}" if f.advice else "")) for f in findings]
    call.out.show(document, table(("CHECK", "RESULT", "FOUND"), rows))
    return int(failed)


# -- the machine ---------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= PYTHON:
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "fail", version, "install Python 3.11 or newer")
    # Looked for, not imported: that takes a second and starts threads.
    if importlib.util.find_spec("ray") is not None:
        from importlib.metadata import version as installed  # noqa: PLC0415

        yield Finding("ray", "ok", installed("ray"))
    else:
        yield Finding("ray", "fail", "is not installed", "pip install novawf")
    if Path("/proc/self/stat").exists() and hasattr(os, "pidfd_open"):
        yield Finding("processes", "ok", "/proc and pidfd are there")
    else:
        yield Finding(
            "processes", "fail", "no /proc or no pidfd", "run on Linux 5.3 or newer, with /proc"
        )


def _home(home: Path) -> Iterator[Finding]:
    try:
        status = home.stat()
    except FileNotFoundError:
        yield Finding("home", "ok", f"{home} does not exist yet; `novawf up` makes it")
        home = next(parent for parent in home.parents if parent.exists())
    except OSError as error:
        yield Finding("home", "fail", f"{home}: {error.strerror}", "choose another by --home")
        return
    else:
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISDIR(status.st_mode):
            yield Finding("home", "fail", f"{home} is no directory", "choose another by --home")
            return
        if status.st_uid != os.geteuid():
            yield Finding("home", "fail", f"{home} is not yours", "choose another by --home")
        elif mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield Finding("home", "fail", f"others may write to {home}", f"chmod go-w {home}")
        elif mode & 0o077:
            yield Finding("home", "warn", f"others may look into {home}", f"chmod 700 {home}")
        else:
            yield Finding("home", "ok", f"{home} (mode {mode:04o})")
    yield _disk(home)


def _disk(directory: Path) -> Finding:
    free = shutil.disk_usage(directory).free
    detail = f"{free / (1 << 30):.1f} GiB free at {directory}"
    if free < FREE_DISK_FAIL_BYTES:
        return Finding("disk", "fail", detail, "free some space: the store's log must be written")
    if free < FREE_DISK_WARN_BYTES:
        return Finding("disk", "warn", detail, "free some space soon")
    return Finding("disk", "ok", detail)


# -- the fleet -----------------------------------------------------------------------------------


def _running(place: Place) -> dict[str, Any] | None:
    from novawf.processes.finding import find_fleet  # noqa: PLC0415 - see the package's docstring

    try:
        return find_fleet(place.home)
    except NovawfError:
        return None


def _fleet_finding(place: Place, running: dict[str, Any] | None) -> Finding:
    if running is not None:
        since = f"since {running.get('started_at', 'unknown')}"
        return Finding("fleet", "ok", f"runs at {place.home} (pid {running.get('pid')}, {since})")
    result: Literal["warn", "fail"] = "fail" if place.store is None else "warn"
    return Finding("fleet", result, f"none runs at {place.home}", "start one with `novawf up`")


async def _store(call: Invocation) -> list[Finding]:
    try:
        async with call.fleet() as fleet:
            return [*await _store_state(fleet), *await _fleet_state(fleet)]
    except OutOfReach as error:
        return [Finding("store", "fail", str(error))]
    except NovawfError as error:
        return [Finding("store", "fail", str(error))]


async def _store_state(fleet: Fleet) -> list[Finding]:
    from novawf.clock import boot_id, boottime_ms, wall_offset_ms  # noqa: PLC0415
    from novawf.store import keys  # noqa: PLC0415
    from novawf.store.connect import translate_errors  # noqa: PLC0415
    from novawf.store.probe import probe  # noqa: PLC0415

    with translate_errors(fleet.address):
        found = await probe(fleet.redis)
        anchor = await fleet.redis.hget(keys.CLOCK, boot_id() or "unknown")
    what = f"{found.backend} {found.version} at {fleet.address.redacted()}, {found.persistence}"
    lossy = found.loss_window_s > 60
    findings = [
        Finding(
            "store",
            "warn" if lossy else "ok",
            f"{what}. {found.loss_text}",
            "switch its append-only log on" if lossy else "",
        )
    ]
    if anchor is None:
        findings.append(Finding("clock", "ok", "not anchored yet; a fleet does it at its start"))
    else:
        skew_s = (wall_offset_ms() - int(anchor)) / 1000
        detail = f"fleet time {(boottime_ms() + int(anchor)) / 1000:.3f}"
        findings.append(
            Finding("clock", "ok", f"{detail}, {skew_s:+.1f} s off the wall clock")
            if abs(skew_s) < 60
            else Finding("clock", "warn", f"the wall clock has jumped by {skew_s:+.0f} s since")
        )
    return findings


async def _fleet_state(fleet: Fleet) -> list[Finding]:
    status = await fleet.status()
    findings = []
    for kind, children in (("Nova", status["novas"]), ("actor", status["actors"])):
        for child in children:
            name = child.get("id") or child["name"]
            if not child["alive"]:
                advice = child["cause"] or "see the supervisor's output"
                findings.append(Finding(name, "fail", f"{kind} is {child['state']}", advice))
            elif not child.get("listening", True):
                findings.append(Finding(name, "fail", f"{kind} is alive and silent", "wait 30 s"))
            else:
                findings.append(Finding(name, "ok", f"{kind} is alive (pid {child['pid']})"))
    held = status["fleet"]["held"]
    if status["fleet"]["stop"] is not None:
        findings.append(Finding("work", "warn", held, "`novawf clear-stop` lets it go on"))
    elif held and status["novas"]:
        findings.append(Finding("work", "warn", held))
    paused = [nova["id"] for nova in status["novas"] if nova["paused"]]
    if paused:
        findings.append(Finding("pause", "warn", f"{', '.join(paused)} paused by name"))
    return findings


def _dashboard(running: dict[str, Any]) -> Finding:
    url = running.get("dashboard_url")
    if not url:
        return Finding("dashboard", "warn", "is switched off")
    address = url if "://" in url else f"http://{url}"
    from urllib.error import URLError  # noqa: PLC0415 - see the package's docstring
    from urllib.request import urlopen  # noqa: PLC0415

    try:
        with urlopen(address, timeout=HTTP_TIMEOUT_S) as reply:  # noqa: S310 - from our own file
            return Finding("dashboard", "ok", f"{address} answers {reply.status}")
    except (URLError, OSError, ValueError) as error:
        return Finding("dashboard", "warn", f"{address} does not answer ({error})")


def _token(running: dict[str, Any]) -> Finding:
    file = running.get("ray_token_file")
    if not file:
        return Finding("token", "warn", "the fleet named no token file for the dashboard")
    if not os.access(file, os.R_OK):
        return Finding("token", "warn", f"{file} cannot be read", "the dashboard asks for it")
    return Finding("token", "ok", f"the dashboard's token is in {file}")
