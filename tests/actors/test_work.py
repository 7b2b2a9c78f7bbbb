"""A running fleet does the work that it is given, once, and shows it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path

from fleet_process import FleetProcess
from waiting import wait_until


def metrics(fleet: FleetProcess) -> str:
    url = f"http://127.0.0.1:{fleet.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_every_nova_listens_and_is_up_in_the_metrics(fleet: FleetProcess) -> None:
    status = fleet.status()
    assert [nova["id"] for nova in status["novas"]] == ["echo", "helix", "torch"]
    assert all(nova["listening"] and nova["alive"] for nova in status["novas"])
    assert {actor["name"] for actor in status["actors"]} == {
        "limiter", "metrics", "safety", "streams",
    }  # fmt: skip
    for name in ("torch", "echo", "helix"):
        assert f'novawf_nova_up{{nova="{name}"}} 1.0' in metrics(fleet)


def test_many_commands_run_exactly_once_each_with_their_results_on_disk(
    fleet: FleetProcess, tmp_path: Path
) -> None:
    sources = sorted(Path(os.__file__).parent.glob("*.py"))[:60]
    jobs = tmp_path / "jobs.jsonl"
    program = (
        "import hashlib, pathlib, sys; out = pathlib.Path(sys.argv[2]);"
        "f = out.open('a'); f.write(hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes())"
        ".hexdigest() + chr(10))"
    )
    lines = [
        {
            "title": f"hash {source.name}",
            "argv": [sys.executable, "-I", "-S", "-c", program, str(source),
                     str(tmp_path / f"{number}.sha256")],
        }
        for number, source in enumerate(sources)
    ]  # fmt: skip
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    task_ids = fleet.json("import", str(jobs))["task_ids"]
    for task_id in task_ids:
        assert fleet.ended(task_id, 60)["status"] == "completed"
    import hashlib

    for number, source in enumerate(sources):
        wrote = (tmp_path / f"{number}.sha256").read_text().split()
        assert wrote == [hashlib.sha256(source.read_bytes()).hexdigest()]


def test_a_callable_gets_its_arguments_and_its_result_is_kept(fleet: FleetProcess) -> None:
    task = fleet.ended(fleet.submit(callable="fleet_jobs:add", args=[2, 3]))
    assert (task["status"], task["outcome"], task["results"]) == ("completed", "succeeded", 5)


def test_callables_run_in_one_warm_worker_of_their_nova_and_not_in_the_nova(
    fleet: FleetProcess,
) -> None:
    pids = set()
    for _ in range(3):
        task = fleet.ended(fleet.submit(callable="fleet_jobs:who", nova="echo"))
        assert task["results"]["task"] == task["task_id"]
        assert task["results"]["nova"] == "echo"
        pids.add(task["results"]["pid"])
    assert len(pids) == 1
    assert pids.isdisjoint({fleet.nova("echo")["pid"]})


def test_a_crashing_callable_costs_the_task_and_never_the_nova(fleet: FleetProcess) -> None:
    before = fleet.nova("helix")
    task = fleet.ended(fleet.submit(callable="fleet_jobs:crash", nova="helix", retries=1))
    assert (task["status"], task["outcome"], task["attempts"]) == ("blocked", "failed", 2)
    after = fleet.nova("helix")
    assert (after["pid"], after["restarts"]) == (before["pid"], before["restarts"])


def test_a_failed_task_is_tried_again_after_a_pause(fleet: FleetProcess, tmp_path: Path) -> None:
    marker = str(tmp_path / "marker")
    task = fleet.ended(fleet.submit(callable="fleet_jobs:fail_once", args=[marker]))
    assert (task["status"], task["attempts"]) == ("completed", 2)
    assert [event["event"] for event in task["history"]] == [
        "created", "claimed", "retry", "claimed", "completed",
    ]  # fmt: skip


def test_a_timeout_ends_the_whole_tree_of_a_command(fleet: FleetProcess, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pidfile}; trap \"\" TERM; sleep 60' & sleep 60"
    task = fleet.ended(fleet.submit(argv=["sh", "-c", script], timeout_s=1, retries=0))
    assert (task["status"], task["outcome"]) == ("blocked", "failed")
    assert "exceeded 1 s" in task["history"][-1]["detail"]
    pid = int(pidfile.read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 10, what="the grandchild's end")


def test_a_running_task_is_cancelled_at_once(fleet: FleetProcess, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    task_id = fleet.submit(argv=["sh", "-c", f"touch {marker}; sleep 60"])
    wait_until(marker.exists, 10)
    fleet.novawf("cancel", task_id)
    task = fleet.ended(task_id, 15)
    assert (task["status"], task["outcome"]) == ("blocked", "cancelled")


def test_a_blocked_task_runs_again_when_it_is_retried(fleet: FleetProcess, tmp_path: Path) -> None:
    marker = tmp_path / "there"
    task_id = fleet.submit(argv=["test", "-e", str(marker)], retries=0)
    assert fleet.ended(task_id)["outcome"] == "failed"
    marker.touch()
    fleet.novawf("retry", task_id)
    wait_until(lambda: fleet.task(task_id)["status"] == "completed", 15)


def test_output_can_be_followed_and_its_end_is_kept(fleet: FleetProcess) -> None:
    task_id = fleet.submit(argv=["sh", "-c", "echo one; sleep 1; echo two"])
    assert fleet.novawf("logs", "-f", task_id).stdout.split() == ["one", "two"]
    assert fleet.ended(task_id)["stdout_tail"] == "one\ntwo\n"


def test_a_task_that_names_no_work_is_blocked_with_that_reason(fleet: FleetProcess) -> None:
    task = fleet.ended(fleet.submit(title="only a title"))
    assert (task["status"], task["outcome"]) == ("blocked", "no_executor")


def test_a_callable_asks_the_fleets_limiter_before_it_calls_an_api(fleet: FleetProcess) -> None:
    before = fleet.json("limits")["ok"]
    task = fleet.ended(fleet.submit(callable="fleet_jobs:call_api"))
    assert task["results"] == "called"
    wait_until(lambda: fleet.json("limits")["ok"] == before + 1, 10)


def test_what_a_call_cost_is_in_the_ledger(fleet: FleetProcess) -> None:
    def spent() -> float:
        rows = fleet.json("budget")["budgets"]
        fleets = (row for row in rows if row["scope"] == "fleet" and row["window"] == "total")
        return next((float(row["spent"]) for row in fleets if row["unit"] == "usd"), 0.0)

    before = spent()
    task = fleet.ended(fleet.submit(callable="fleet_jobs:call_paid_api", args=[0.4, 0.31]))
    assert task["status"] == "completed"
    wait_until(lambda: round(spent() - before, 6) == 0.31, 10)


def test_a_task_spends_no_more_than_its_own_budget(fleet: FleetProcess) -> None:
    task = fleet.ended(
        fleet.submit(callable="fleet_jobs:call_paid_api", args=[0.4], budget_usd=0.3)
    )
    assert (task["status"], task["outcome"], task["attempts"]) == ("blocked", "failed", 1)
    assert "budget" in task["history"][-1]["detail"]


def test_commands_know_their_task_and_nova(fleet: FleetProcess) -> None:
    script = "echo $NOVAWF_TASK_ID $NOVAWF_ATTEMPT $NOVAWF_NOVA"
    task_id = fleet.submit(argv=["sh", "-c", script], nova="torch")
    assert fleet.ended(task_id)["stdout_tail"].split() == [task_id, "1", "torch"]


def test_the_state_of_a_nova_is_kept_in_its_hash(fleet: FleetProcess) -> None:
    import redis

    url = fleet.novawf("store-url").stdout.strip()
    store = redis.Redis.from_url(url, decode_responses=True)
    fields = store.hgetall("workflow:state:torch")
    assert {
        "current_state", "current_phase", "tasks_completed_in_phase", "tool_use_count",
        "last_stream_check", "last_completion_celebration", "session_start_time",
        "total_cycles_completed", "safety_status", "schema_version", "owner_epoch", "task_in_hand",
    } <= fields.keys()  # fmt: skip
    assert 0 < store.ttl("workflow:state:torch") <= 3600
    store.close()
