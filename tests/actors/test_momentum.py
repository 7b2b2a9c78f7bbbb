"""Momentum in a real fleet: what the flag and the settings of a supervisor come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

from actors.roster import _work_settings
from novawf.work.config import WorkSettings

QUICK = {"NOVAWF_RAY__DASHBOARD": "false", "NOVAWF_WORK__MOMENTUM_AFTER_S": "5"}


def momentum(fleet: FleetProcess, status: str) -> list[dict[str, Any]]:
    rows = fleet.json("tasks", "--status", status)
    return [row for row in rows if row["work_type"] == "momentum"]


def test_an_idle_fleet_keeps_its_momentum_and_real_work_runs(tmp_path: Path) -> None:
    """After five idle seconds built-in jobs are done, with results; none of them failed."""
    flags = ("--novas", "torch", "--pace", "0", "--momentum", "on")
    with running_fleet(tmp_path / "home", *flags, env=clean_environment(**QUICK)) as fleet:
        wait_until(lambda: len(momentum(fleet, "completed")) >= 3, 30, what="three jobs")
        for row in momentum(fleet, "completed"):
            results = fleet.task(row["task_id"])["results"]
            assert results
            assert not results.get("findings"), results
        assert fleet.ended(fleet.submit(argv=["true"]))["outcome"] == "succeeded"
        assert momentum(fleet, "blocked") == []


def test_until_idle_finds_no_work_of_its_own() -> None:
    """Else a fleet that drains what is queued would never be idle."""
    assert not _work_settings(WorkSettings(), until_idle=True).discovery
    assert _work_settings(WorkSettings(), until_idle=False).discovery
