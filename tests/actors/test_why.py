"""A running fleet says why things wait, and what it says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fleet_process import FleetProcess
from waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def reason(fleet: FleetProcess, subject: str) -> str:
    return str(fleet.ask(lambda client: client.why(subject))["reason"])


def test_what_waits_is_explained_until_it_is_released(fleet: FleetProcess, tmp_path: Path) -> None:
    """In hand, behind a busy Nova, after another task, paused: and each ends as was said."""
    go = tmp_path / "go"
    script = f"until test -e {go}; do sleep 0.05; done"
    first = fleet.submit(argv=["sh", "-c", script], nova="torch", title="Hold")
    wait_until(lambda: reason(fleet, first) == "in_hand", 15)
    aimed = fleet.submit(argv=["true"], nova="torch")
    after = fleet.submit(argv=["true"], after=[first])
    assert reason(fleet, aimed) == "nova_busy"
    assert f"torch has {first}" in fleet.novawf("why", aimed).stdout
    assert fleet.json("why", after)["details"]["root"] == first
    assert fleet.json("why", "torch")["details"]["task"] == first
    held = fleet.json("status")["novas"]
    wait_until(
        lambda: any(nova["why"]["reason"] == "working" for nova in fleet.status()["novas"]), 15
    )
    assert {nova["id"] for nova in held} == {"torch", "echo", "helix"}
    go.touch()
    for task_id in (first, aimed, after):
        assert fleet.ended(task_id)["status"] == "completed"
        assert reason(fleet, task_id) == "completed"


def test_a_paused_target_is_the_reason_and_resuming_it_the_release(fleet: FleetProcess) -> None:
    fleet.novawf("pause", "echo")
    task_id = fleet.submit(argv=["true"], nova="echo")
    why = fleet.json("why", task_id)
    assert (why["reason"], why["released_by"]) == ("nova_paused", "`novawf resume echo`")
    fleet.novawf("resume", "echo")
    assert fleet.ended(task_id)["status"] == "completed"


def test_the_program_on_the_client_s_page_runs_as_it_stands(fleet: FleetProcess) -> None:
    program = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert program is not None
    ran = subprocess.run(
        [sys.executable, "-c", program.group(1)],
        env={**fleet.env, "NOVAWF_HOME": str(fleet.home)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.stdout.startswith("completed 0 "), ran.stderr
