"""Each built-in job on a real store: what it answers is real, and stays JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from novawf.clock import ManualClock, SystemClock, iso
from novawf.executors.maintenance import MaintenanceExecutor
from novawf.ids import request_id
from novawf.safety.assembly import orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.gate import Gate
from novawf.safety.verdict import safe
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect
from novawf.tasks.archive import Archive
from novawf.tasks.claims import Claim, Claimant, Measured, take_identity
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.tasks.model import TaskSpec
from novawf.tasks.queue import TaskQueue
from novawf.work.jobs.catalogue import BUILT_IN, maintenance_jobs
from novawf.work.jobs.table import JobContext
from novawf.workflow.identity import NovaBeat

NAMES = [job.name for job in BUILT_IN]
NONE = {"failure_review": ("failed: x", []), "deadline_review": ([],)}
"""Arguments of the jobs that need some."""


class Fleet:
    """A store with a little history, made by the queue's own scripts."""

    def __init__(self, redis: Any, clock: ManualClock) -> None:
        self.redis = redis
        self.clock = clock
        self.queue = TaskQueue(redis, clock, TaskSettings())
        self.claimants: dict[str, Claimant] = {}

    async def run(self, name: str, *args: Any, nova: str = "torch") -> dict[str, Any]:
        """What the job answers, as it comes back from the store."""
        context = JobContext(self.redis, self.clock, nova)
        result = await maintenance_jobs(context)[name](args)
        return dict(json.loads(json.dumps(result)))

    async def open_gate(self, valid_s: int = 6) -> None:
        await orchestrator_of(self.redis, self.clock, SafetySettings()).round()
        await Gate(self.redis, self.clock).refresh(
            safe("test", self.clock.now_ms() + valid_s * 1000)
        )

    async def submit(self, **fields: Any) -> str:
        spec = TaskSpec.parse({"title": "work", "callable": "jobs:work", **fields})
        return (await self.queue.admit(spec, request_id())).task_id

    async def claim(self, nova: str = "torch", **fields: Any) -> Claim:
        await self.open_gate()
        await self.submit(nova=nova, **fields)
        if nova not in self.claimants:
            epoch = await take_identity(self.redis, nova)
            self.claimants[nova] = Claimant(self.redis, self.clock, TaskSettings(), nova, epoch)
        claim = await self.claimants[nova].claim()
        assert isinstance(claim, Claim)
        return claim

    async def end(self, verdict: Any, outcome: str, detail: str, nova: str = "torch") -> str:
        claim = await self.claim(nova, title=detail)
        await self.claimants[nova].finish(
            claim, Ending(verdict, outcome), result="", detail=detail, claim_next=False,
            duration=Measured("3", 4000),
        )  # fmt: skip
        return claim.task_id

    async def beats(self, nova: str, task: str = "", state: str = "work_discovery") -> None:
        now_ms = self.clock.now_ms()
        beat = NovaBeat(1, 1, state, "work_phase_1", task, 7, now_ms, now_ms, now_ms - 90_000)
        await self.redis.hset(keys.NOVAS, nova, beat.to_json())


@pytest.fixture
def fleet(redis: Any, clock: ManualClock) -> Fleet:
    return Fleet(redis, clock)


@pytest.mark.parametrize("name", NAMES)
async def test_every_job_answers_on_an_empty_store(fleet: Fleet, name: str) -> None:
    """A new fleet has nothing to look at, and that is no error."""
    result = await fleet.run(name, *NONE.get(name, ()))
    assert result
    assert "skipped" not in result or name == "retention_sweep"


@pytest.mark.parametrize("name", NAMES)
async def test_every_job_takes_less_than_a_second_at_ten_thousand(fleet: Fleet, name: str) -> None:
    """With 10,000 queued and Novas that have a history; by a wide margin."""
    pipe = fleet.redis.pipeline(transaction=False)
    for number in range(10_000):
        pipe.zadd(keys.READY, {f"FLEET-1-{number:06x}": 9e14 + number})
        pipe.hset(
            keys.TASK_STATE, f"FLEET-1-{number:06x}",
            "pending||0|4|0||0||300000|2026-11-21T00:00:00.000Z|1|1||||\n",
        )  # fmt: skip
    await pipe.execute()
    for nova in ("torch", "echo", "helix"):
        await fleet.beats(nova)
        for number in range(20):
            await fleet.end("completed", "succeeded", f"done {number % 3}", nova)
    args = {"failure_review": ("failed: x", ["FLEET-1-000001"]), "deadline_review": ([],)}
    began_s = time.perf_counter()
    await fleet.run(name, *args.get(name, ()))
    assert time.perf_counter() - began_s < 1.0


@pytest.mark.parametrize("name", NAMES)
async def test_a_store_that_is_away_leaves_no_dead_letter(
    clock: ManualClock, tmp_path: Any, name: str
) -> None:
    """The job says that it was skipped: it comes again with its next slot."""
    away = connect(StoreAddress.unix(tmp_path / "none.sock"), name="away")
    archive = Archive(away, clock, TaskSettings(), tmp_path / "archive")
    jobs = maintenance_jobs(JobContext(away, clock, "torch", archive))
    args = {"failure_review": ("failed: x", ["A-1-00000a"]), "deadline_review": (["A-1-00000a"],)}
    result = await jobs[name](args.get(name, ()))
    assert result["skipped"].startswith("the store was away")
    await away.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_a_foreign_key_of_another_type_is_our_own_fault_or_none(
    fleet: Fleet, name: str
) -> None:
    """Somebody's text under a stream's name breaks no job."""
    await fleet.beats("torch")
    for key in (keys.completed("torch"), keys.insights("echo"), keys.coordination("torch")):
        await fleet.redis.set(key, "text")
    assert await fleet.run(name, *NONE.get(name, ()))


async def test_jobs_run_under_the_maintenance_executor(fleet: Fleet) -> None:
    """By name, as a task names them."""
    executor = MaintenanceExecutor(
        maintenance_jobs(JobContext(fleet.redis, fleet.clock, "torch")), 5.0
    )
    assert set(executor._jobs) == set(NAMES)


# -- safety_check ---------------------------------------------------------------------------------


async def test_a_sound_fleet_passes_the_safety_check(fleet: Fleet) -> None:
    """With work in hand, waiting and done, nothing contradicts."""
    await fleet.open_gate()
    await fleet.claim()
    await fleet.submit()
    await fleet.end("completed", "succeeded", "done", "echo")
    result = await fleet.run("safety_check")
    assert (result["ok"], result["findings"], result["checks"]) == (True, [], 6)
    assert (result["in_progress"], result["pending"], result["leases_checked"]) == (1, 1, 1)
    assert result["verdict"] == "safe"


async def test_the_safety_check_finds_what_is_wrong(fleet: Fleet) -> None:
    """An expired verdict, a lease without a task, a queued task that is done, a count that is off,
    more permits than the limits allow: each is named."""
    await fleet.open_gate(valid_s=-1)
    done = await fleet.end("completed", "succeeded", "done")
    await fleet.open_gate(valid_s=6)
    fleet.clock.advance(7000)
    now_ms = fleet.clock.now_ms()
    await fleet.redis.zadd(keys.READY, {done: 1})
    await fleet.redis.zadd(keys.LEASES, {"GONE-1-00000a": now_ms + 9000})
    await fleet.redis.hset(
        keys.FLEET, "document", json.dumps({"limits": {"requests_per_minute": 2}})
    )
    await fleet.redis.zadd(keys.LIMIT_GRANTS, {f"p{n}": now_ms - n for n in range(3)})
    result = await fleet.run("safety_check")
    assert not result["ok"]
    assert result["findings"] == sorted(
        [
            "the safety verdict is not renewed: nothing can start",
            f"task {done} is queued to start and is completed",
            "task GONE-1-00000a has a lease and is unknown",
            "0 tasks are counted as in progress, and 1 have a lease",
            "requests in the last minute: 3 permits were given, 2 are allowed",
        ]
    )


async def test_a_lease_that_nobody_freed_is_found(fleet: Fleet) -> None:
    """The supervisor frees them in seconds; one of a minute ago means that it does not."""
    claim = await fleet.claim()
    fleet.clock.advance(120_000)
    await fleet.open_gate()
    findings = (await fleet.run("safety_check"))["findings"]
    assert findings == [f"task {claim.task_id}: its lease ran out and nobody freed it"]


# -- streams, insights ----------------------------------------------------------------------------


async def test_stream_statistics_measure_length_and_lag(fleet: Fleet) -> None:
    """Lengths are the streams' own, and what nobody read counts as lag."""
    await fleet.beats("torch")
    for _ in range(3):
        await fleet.redis.xadd(keys.coordination("torch"), {"message": "m"})
    await fleet.submit()
    result = await fleet.run("stream_statistics")
    rows = {row["name"]: row for row in result["longest"]}
    assert rows[keys.coordination("torch")]["length"] == 3
    assert result["lag"] == 3
    assert result["behind"] == [keys.coordination("torch")]
    assert result["entries"] == 3 + rows[keys.todo("fleet")]["length"]


async def reflect(fleet: Fleet, count: int, nova: str = "torch") -> None:
    for number in range(count):
        await fleet.redis.xadd(
            keys.insights(nova),
            {"type": "reflection", "task_id": f"X-1-{number:06x}", "signs": "slow,retried",
             "skill": "python", "lessons": f"lesson {number % 2}"},
        )  # fmt: skip


async def test_new_insights_are_consolidated_into_one(fleet: Fleet) -> None:
    """Drawn together once; what was consolidated is not drawn together again."""
    await reflect(fleet, 5)
    result = await fleet.run("insight_consolidation")
    assert result == {
        "reflections": 5, "written": True, "skills": 1, "lessons": 2, "improvements": 0,
    }  # fmt: skip
    [(_, insight)] = await fleet.redis.xrevrange(keys.insights("torch"), count=1)
    assert insight["type"] == "consolidated"
    assert insight["reflections"] == "5"
    assert insight["signs"] == "retried (5); slow (5)"
    assert insight["lessons"] == "lesson 0 (3); lesson 1 (2)"
    assert await fleet.run("insight_consolidation") == {
        "reflections": 0, "written": False, "skills": 0, "lessons": 0, "improvements": 0,
    }  # fmt: skip


async def test_insights_of_others_stay_theirs(fleet: Fleet) -> None:
    """Neither read nor written; and the result, which all may see, holds no text of an insight."""
    await reflect(fleet, 5, "echo")
    await reflect(fleet, 5, "torch")
    result = await fleet.run("insight_consolidation", nova="torch")
    assert await fleet.redis.xlen(keys.insights("echo")) == 5
    assert "lesson 0" not in json.dumps(result)


# -- report, reviews ------------------------------------------------------------------------------


async def test_the_report_counts_what_was_done(fleet: Fleet) -> None:
    """Counts, throughput, completion rate and durations are those of the queue."""
    await fleet.beats("torch")
    for _ in range(3):
        await fleet.end("completed", "succeeded", "done")
    await fleet.end("blocked", "failed", "exit code 1")
    await fleet.submit()
    result = await fleet.run("report")
    assert result["tasks"] == {"pending": 1, "in_progress": 0, "completed": 3, "blocked": 1}
    assert (result["completed_last_hour"], result["completion_rate"]) == (3, 0.75)
    assert result["duration_ms"] == {"p50": 5.0, "p95": 5.0}
    assert result["protocol"] == {"valid": 0, "all": 0, "compliance": None}
    assert result["novas"] == ["torch"]


async def test_the_workflow_review_names_who_is_stuck(fleet: Fleet) -> None:
    """A Nova that recovers for over a minute stands out; one that works does not."""
    await fleet.beats("torch", state="error_recovery")
    await fleet.beats("echo")
    await fleet.end("completed", "succeeded", "done", "echo")
    result = await fleet.run("workflow_review")
    assert [(row["nova"], row["in_state_s"], row["cycles"]) for row in result["novas"]] == [
        ("echo", 90.0, 7),
        ("torch", 90.0, 7),
    ]
    assert result["attempts"]["completed"] == 1
    assert result["findings"] == ["torch is in error_recovery for 90 s"]


async def test_the_coordination_review_tells_who_waits_for_whom(fleet: Fleet) -> None:
    """Idle and busy, tasks for one Nova alone, tasks that come after others, blocked outcomes."""
    await fleet.end("blocked", "failed", "exit code 1")
    await fleet.beats("torch", task="T-1-00000a")
    await fleet.beats("echo")
    first = await fleet.submit(nova="torch")
    await fleet.submit(nova="gone")
    second = await fleet.submit(after=[first])
    result = await fleet.run("coordination_review")
    assert (result["idle"], result["busy"]) == (["echo"], ["torch"])
    assert result["pinned"] == {"gone": 1, "torch": 1}
    assert result["waits"] == [{"task_id": second, "waits_for": 1, "status": "pending"}]
    assert result["blocked"] == {"failed": 1}
    assert result["findings"] == [
        "1 tasks wait for gone alone, which does not run",
        "1 tasks wait for torch, which is busy, while 1 Novas are idle",
    ]


async def test_patterns_are_those_of_the_records(fleet: Fleet) -> None:
    """Who did how much, what is repeated, what fails."""
    await fleet.beats("torch")
    await fleet.beats("echo")
    for _ in range(2):
        await fleet.end("completed", "succeeded", "nightly")
    await fleet.end("blocked", "failed", "exit code 1", "echo")
    result = await fleet.run("behaviour_patterns")
    assert result["by_nova"] == {"torch": 2, "echo": 1}
    assert result["repeated"] == {"nightly": 2}
    assert result["failures"] == {"failed: exit code 1": 1}
    assert result["records"] == 3


async def test_the_benchmark_measures_and_leaves_nothing(fleet: Fleet) -> None:
    """Three kinds of calls, and its scratch stream is empty afterwards."""
    result = await fleet.run("store_benchmark")
    for kind in ("ping_ms", "script_ms", "xadd_ms"):
        assert 0 < result[kind]["p50"] <= result[kind]["p95"]
    assert result["calls"] == 60
    assert await fleet.redis.xlen(keys.benchmark("torch")) == 0


# -- retention ------------------------------------------------------------------------------------


async def test_the_retention_sweep_archives_what_is_old(fleet: Fleet, tmp_path: Path) -> None:
    """Ended tasks leave the store for the archive; without an archive the job says so."""
    old = await fleet.end("completed", "succeeded", "done")
    fleet.clock.advance(200 * 3_600_000)
    new = await fleet.end("completed", "succeeded", "done")
    assert await fleet.run("retention_sweep") == {
        "skipped": "this Nova has no archive", "budgets": 0,
    }  # fmt: skip
    archive = Archive(fleet.redis, fleet.clock, TaskSettings(), tmp_path / "archive")
    context = JobContext(fleet.redis, fleet.clock, "torch", archive)
    result = await maintenance_jobs(context)["retention_sweep"](())
    assert (result["tasks"], result["done"]) == (1, True)
    assert archive.find(old)
    assert await fleet.redis.hkeys(keys.TASK_STATE) == [new]


# -- reviews of the strategic planner -------------------------------------------------------------


async def test_the_failure_review_tells_what_stands(fleet: Fleet) -> None:
    """What is still blocked, on which Nova it happened, and what to do."""
    task_ids = [await fleet.end("blocked", "failed", "exit code 1") for _ in range(3)]
    result = await fleet.run("failure_review", "failed: exit code 1", [*task_ids, "GONE-1-00000a"])
    assert (result["unsolved"], result["solved"], result["by_status"]) == (3, 0, {"blocked": 3})
    assert result["novas"] == {"torch": 3}
    assert [row["task_id"] for row in result["tasks"]] == task_ids
    assert result["advice"][0] == "all of it happened on torch: look at that Nova first"
    assert f"novawf retry {task_ids[0]}" in result["advice"][1]


async def test_the_deadline_review_says_what_each_waits_for(fleet: Fleet) -> None:
    """Approval, another task, its time, its Nova, or nothing but a free Nova."""
    await fleet.beats("echo", task="T-1-00000a")
    soon = iso(fleet.clock.wall_s() + 300)
    sooner = iso(fleet.clock.wall_s() + 200)
    first = await fleet.submit(nova="echo", deadline=soon)
    waits = {
        first: "it is for echo alone, which is busy with T-1-00000a",
        await fleet.submit(deadline=soon, approval=True): "it awaits approval: `novawf approve ",
        await fleet.submit(deadline=soon, after=[first]): "it comes after 1 tasks",
        await fleet.submit(deadline=soon, at=sooner): "it may start in 200 s",
        await fleet.submit(deadline=soon, nova="gone"): "it is for gone alone, which does not run",
        await fleet.submit(deadline=soon): "it is ready",
    }
    result = await fleet.run("deadline_review", list(waits))
    assert result["begun"] == 0
    for row in result["late"]:
        assert row["why"].startswith(waits[row["task_id"]])
        assert row["left_s"] == pytest.approx(300, abs=1)


async def test_system_time_works_too(redis: Any) -> None:
    """The jobs that look at wall time agree with a real clock: records of now are recent."""
    clock = SystemClock()
    fleet = Fleet(redis, clock)  # type: ignore[arg-type]
    await fleet.beats("torch")
    await fleet.end("completed", "succeeded", "done")
    assert (await fleet.run("report"))["completed_last_hour"] == 1
