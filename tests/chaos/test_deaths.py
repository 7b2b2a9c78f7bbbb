"""Whatever dies, and however often: all that was started ends, nothing else does, no task is lost.

The short one is part of every test run; the long one has the 500 deaths (`-m long`).
"""

from __future__ import annotations

import random

import pytest
from deaths import GONE_WITHIN_S, Doomed, ends_of
from fleet_process import FleetProcess
from waiting import wait_until


@pytest.mark.parametrize(
    ("kills", "supervisors"),
    [
        pytest.param(120, 2, marks=pytest.mark.timeout(300), id="short"),
        pytest.param(500, 6, marks=[pytest.mark.long, pytest.mark.timeout(900)], id="long"),
    ],
)
def test_no_death_leaves_a_process_or_costs_a_task(
    tmp_path_factory: pytest.TempPathFactory, kills: int, supervisors: int
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    doomed = Doomed(tmp_path_factory.mktemp("d"), seed)
    try:
        doomed.rage(kills, supervisors)
        doomed.wait_for_all(90)
        ends = doomed.fleet.ask(lambda fleet: ends_of(fleet, doomed.ids))
        ran = [line.split()[0] for line in (doomed.directory / "runs").read_text().splitlines()]
        print(f"{dict(doomed.kills)}; {len(ends)} tasks, {len(ran)} runs")
        assert set(ends.values()) == {1}, "a task ended twice, or not at all"
        assert set(ran) >= set(ends), "a task completed that never ran"
        wait_until(lambda: not doomed.leaves(), GONE_WITHIN_S, what="the end of all commands")
        wait_until(lambda: not doomed.zombies(), GONE_WITHIN_S, what="the burial of the dead")
        check_that_it_works(doomed.fleet)
        assert doomed.fleet.stop() == 0
        wait_until(lambda: not doomed.left_behind(), GONE_WITHIN_S, what="the end of everything")
        assert all(b.poll() is None for b in doomed.bystanders), "a foreign process was killed"
    finally:
        doomed.close()


def check_that_it_works(fleet: FleetProcess) -> None:
    """Every Nova, after all that."""
    for nova in fleet.status()["novas"]:
        assert fleet.ended(fleet.submit(argv=["true"], nova=nova["id"]))["status"] == "completed"
