"""Shared actors die under load: no limit is exceeded meanwhile, callers wait and go on."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from waiting import wait_until

SUPPORT = Path(__file__).resolve().parents[1] / "support"
AT_ONCE = 2
PER_MINUTE = 40
LEASE_S = 4
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "100",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
    "NOVAWF_LIMITS__CONCURRENT": str(AT_ONCE),
    "NOVAWF_LIMITS__REQUESTS_PER_MINUTE": str(PER_MINUTE),
    "NOVAWF_LIMITS__REQUEST_TIMEOUT_S": str(LEASE_S),
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
}
ROUNDS = 3


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetProcess]:
    flags = ("--novas", "torch,echo,helix", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(tmp_path / "home", *flags, env=clean_environment(**SETTINGS)) as running:
        yield running


def test_limits_hold_through_the_death_of_every_shared_actor(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    """As their callees see the calls: never more at once, nor within a minute, than allowed; the
    breaker, the stop and a pause are what they were."""
    noted = tmp_path / "calls"
    fleet.novawf("pause", "helix")
    call = {"callable": "fleet_jobs:call_api_and_note", "args": [str(noted), 0.6]}
    ids = [fleet.submit(**call) for _ in range(PER_MINUTE)]

    def calls() -> list[tuple[int, int]]:
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [(int(began), int(ended)) for began, ended in map(str.split, lines)]

    wait_until(calls, 20, what="the first call")
    dice = random.Random(7)
    for _ in range(ROUNDS):
        for name in dice.sample(["limiter", "safety", "metrics", "streams"], 4):
            actor = next(a for a in fleet.status()["actors"] if a["name"] == name)
            os.kill(actor["pid"], signal.SIGKILL)

            def back(name: str = name, pid: int = actor["pid"]) -> bool:
                now = next(a for a in fleet.status()["actors"] if a["name"] == name)
                return now["alive"] and now["pid"] not in (None, pid)

            wait_until(back, 20, what=f"{name} after its death")
    for task_id in ids:
        assert fleet.ended(task_id, 90)["status"] == "completed"
    made = sorted(calls())
    assert len(made) >= len(ids)
    for began, _ in made:
        assert sum(b <= began < e for b, e in made) <= AT_ONCE, "more at once than allowed"
        within = sum(began <= b < began + 60_000_000_000 for b, _ in made)
        assert within <= PER_MINUTE, "more within a minute than allowed"
    assert fleet.nova("helix")["paused"], "a pause was forgotten"
    # What was granted to nobody, as the limiter died, is free when its lease has run out.
    wait_until(lambda: fleet.status()["limits"]["in_use"] == 0, LEASE_S + 5, what="free leases")
