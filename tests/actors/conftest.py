"""One real fleet for the tests of this folder that do not end it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_process import LEASE_S, FleetProcess, clean_environment, running_fleet

SUPPORT = Path(__file__).resolve().parents[1] / "support"

FAULT_SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_SUPERVISION__MAX_RESTARTS": "50",
    "NOVAWF_SUPERVISION__BACKOFF_CAP_S": "0.5",
    "NOVAWF_TASKS__LEASE_S": str(LEASE_S),
    "NOVAWF_TASKS__BACKOFF_BASE_S": "0.1",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
}
"""Restart limits raised for tests that kill on purpose; everything else is as shipped."""


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """torch, echo and helix, without pauses."""
    home = tmp_path_factory.mktemp("fleet") / "home"
    flags = ("--novas", "torch,echo,helix", "--pace", "0", "--momentum", "off", "--no-console")
    with running_fleet(home, *flags, env=clean_environment(**FAULT_SETTINGS)) as running:
        yield running
