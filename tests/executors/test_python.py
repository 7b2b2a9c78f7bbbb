"""Python jobs run in one warm worker: quick when they behave, never the Nova's problem when not."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import executor_jobs
import pytest
from process_world import Process, keeper_server
from waiting import until

from novawf.clock import boottime_s, monotonic_s
from novawf.errors import Refused
from novawf.executors.base import NOT_BEGUN, Outcome, Work
from novawf.executors.config import ExecutorSettings, PythonSettings
from novawf.executors.python import OVERDUE_MS, PythonExecutor
from novawf.executors.start import SETTLE_S, Start
from novawf.limits.request import ApiAnswer, ApiAsk
from novawf.processes.keeper import KeeperClient

SETTINGS = ExecutorSettings(
    head_bytes=1200,
    tail_bytes=600,
    grace_s=0.2,
    python=PythonSettings(path=(str(Path(executor_jobs.__file__).parent),)),
)


class Recorder:
    """What a Nova would hear, and a limiter that grants in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.lives = 0
        self.granted = 0
        self.refuse = False
        self.asks: list[ApiAsk] = []
        self.answers: list[ApiAnswer] = []
        self.times: dict[str, Any] = {}
        """What the permits say about time."""

    def progress(self, percent: float | None, text: str) -> None:
        """Noted."""
        self.heard.append((percent, text))

    def alive(self) -> None:
        """Counted."""
        self.lives += 1

    async def api_request(self, ask: ApiAsk) -> dict[str, Any]:
        """The next permit."""
        await asyncio.sleep(0)
        if self.refuse:
            raise Refused("the budget is spent")
        self.granted += 1
        self.heard.append(("asked", ask.cost_usd))
        self.asks.append(ask)
        return {"id": self.granted, **self.times}

    async def api_done(self, permit: dict[str, Any], answer: ApiAnswer) -> None:
        """Noted."""
        self.heard.append(("done", permit["id"], answer.ok))
        self.answers.append(answer)

    async def api_void(self, permit: dict[str, Any]) -> None:
        """Noted."""
        self.heard.append(("void", permit["id"]))
        self.times = {}  # the next one comes in time


class Bench:
    """An executor and short ways to use it."""

    def __init__(self, executor: PythonExecutor, folder: Path) -> None:
        self.executor = executor
        self.folder = folder
        self.report = Recorder()
        self.cancel = asyncio.Event()

    async def run(self, name: str, *args: Any, **more: Any) -> Outcome:
        """Run one of the jobs, or any `pkg.mod:func`."""
        target = name if ":" in name else f"executor_jobs:{name}"
        fields = {"stamp": "torch:1", "log_path": str(self.folder / "T.1.log"), **more}
        work = Work(task_id="T", attempt=1, nova="torch", callable=target, args=args, **fields)
        return await self.executor.run(work, self.report, self.cancel)

    async def worker(self) -> Process:
        """The worker's process; started if there is none."""
        return Process.of((await self.run("who")).results[3])


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A fresh executor under a fresh keeper server."""
    with keeper_server(tmp_path / "run") as server:
        env = {**os.environ, "NOVAWF_STORE_URL": "redis://:secret@x", "NOVAWF_RUN_ID": "r"}
        executor = PythonExecutor(KeeperClient(server.socket_path), SETTINGS, env)
        try:
            yield Bench(executor, tmp_path)
        finally:
            await executor.close()


@pytest.fixture
async def server(tmp_path: Path, bench: Bench) -> KeeperClient:
    """The keeper server of `bench`."""
    return KeeperClient(tmp_path / "run" / "keeper.sock")


class TestResults:
    """What comes back from a job that behaves."""

    @pytest.mark.parametrize("job", ["add", "add_async"])
    async def test_are_what_the_job_returned(self, bench, job):
        outcome = await bench.run(job, 1, 2)
        assert (outcome.ok, outcome.results, outcome.cause) == (True, 3, "")

    async def test_come_from_one_worker_that_stays_warm(self, bench):
        first, second = await bench.run("who"), await bench.run("who")
        assert first.results == second.results
        assert first.results[:3] == ["T", 1, "torch"]

    async def test_come_from_another_worker_when_the_stamp_changed(self, bench, server):
        before = await bench.worker()
        after = await bench.run("who", stamp="torch:2")
        assert after.results[3] != before.pid
        assert not before.runs()
        assert await server.drain("torch:1", 5)

    async def test_that_json_cannot_hold_are_a_clear_failure(self, bench):
        outcome = await bench.run("unserialisable")
        assert outcome.cause == "failed"
        assert outcome.error.startswith("TypeError: executor_jobs:unserialisable returned a object")

    async def test_beyond_one_megabyte_are_a_clear_failure(self, bench):
        assert (await bench.run("huge", (1 << 20) - 100)).ok
        outcome = await bench.run("huge", 1 << 20)
        assert (outcome.ok, outcome.cause) == (False, "failed")
        assert "1048576 are allowed" in outcome.error

    async def test_leave_place_and_environment_as_they_were(self, bench, tmp_path):
        there = await bench.run("where", "COLOUR", cwd=str(tmp_path), env={"COLOUR": "red"})
        assert there.results == [str(tmp_path), "red"]
        assert (await bench.run("where", "COLOUR")).results == [str(Path.cwd()), None]

    async def test_cannot_hold_the_fleets_secrets(self, bench):
        assert (await bench.run("where", "NOVAWF_STORE_URL")).results[1] is None
        assert (await bench.run("where", "NOVAWF_RUN_ID")).results[1] == "r"


class TestOutput:
    """What a job prints."""

    async def test_goes_to_the_jobs_log_and_its_tail_to_the_outcome(self, bench, tmp_path):
        outcome = await bench.run("add", 1, 2)
        assert (outcome.stdout_tail, outcome.output_bytes) == ("adding 1 2\n", 11)
        assert (tmp_path / "T.1.log").read_text() == "adding 1 2\n"
        assert bench.report.lives == 1

    async def test_is_bounded_with_both_ends_kept(self, bench, tmp_path):
        await bench.run("shout", 10_000)
        log = (tmp_path / "T.1.log").read_text()
        assert log.startswith("line 000000\n")
        assert log.endswith("line 009999\n")
        assert "… 118200 bytes left out …" in log

    async def test_of_a_silent_job_is_no_file(self, bench, tmp_path):
        await bench.run("noop")
        assert not (tmp_path / "T.1.log").exists()

    async def test_belongs_to_each_job_alone(self, bench, tmp_path):
        await bench.run("add", 1, 2)
        await bench.run("add", 3, 4, log_path=str(tmp_path / "other"))
        assert (tmp_path / "other").read_text() == "adding 3 4\n"


class TestFailures:
    """They cost the job."""

    async def test_an_exception_is_one_line_and_a_traceback_of_the_jobs_own(self, bench):
        outcome = await bench.run("fail")
        assert (outcome.cause, outcome.error) == ("failed", "TypeError: no such thing")
        assert 'raise TypeError("no such' in outcome.stdout_tail
        assert "python_worker.py" not in outcome.stdout_tail

    async def test_sys_exit_is_a_failure_and_keeps_the_worker(self, bench):
        before = await bench.worker()
        assert (await bench.run("leave_with", 0)).error == "the job called sys.exit(0)"
        assert await bench.worker() == before

    @pytest.mark.parametrize(
        ("target", "error"),
        [
            ("no_such_module:f", "no module named 'no_such_module': put its directory on PYTHON"),
            ("executor_jobs:none", "module 'executor_jobs' has no 'none'"),
            ("executor_jobs:VALUE", "executor_jobs:VALUE is a int, which cannot be called"),
            ("executor_jobs:", "'executor_jobs:' does not name a callable: write pkg.mod:func"),
        ],
    )
    async def test_what_does_not_exist_is_named(self, bench, target, error):
        outcome = await bench.run(target)
        assert outcome.cause == "not_found"
        assert outcome.error.startswith(error)

    async def test_a_module_that_fails_to_import_is_told_from_one_that_is_not_there(
        self, bench, tmp_path
    ):
        (tmp_path / "broken_jobs.py").write_text("import no_such_dependency\n")
        bench.executor._settings = SETTINGS.model_copy(
            update={"python": PythonSettings(path=(str(tmp_path),))}
        )
        outcome = await bench.run("broken_jobs:f")
        assert outcome.cause == "not_found"
        assert outcome.error == (
            "broken_jobs cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such_dependency'"
        )

    async def test_a_missing_directory_is_named(self, bench):
        outcome = await bench.run("noop", cwd="/no/where")
        assert outcome.cause == "not_found"
        assert outcome.error == "cannot work in /no/where: No such file or directory"

    async def test_arguments_that_are_no_json_are_refused(self, bench):
        assert (await bench.run("noop", object())).error.startswith("args: not JSON")


class TestEnds:
    """A worker that crashes, blocks or is told to stop; the next job has a new one."""

    async def test_a_crash_names_the_signal(self, bench):
        outcome = await bench.run("crash")
        assert (outcome.cause, outcome.signal) == ("crash", signal.SIGSEGV)
        assert outcome.error == (
            "the python worker died of SIGSEGV while it ran executor_jobs:crash"
        )
        assert (await bench.run("add", 1, 2)).ok

    async def test_an_exit_is_a_crash_with_its_code(self, bench):
        outcome = await bench.run("die", 5)
        assert (outcome.cause, outcome.exit_code) == ("crash", 5)

    @pytest.mark.parametrize("job", ["block", "swallow"])
    async def test_a_job_that_takes_too_long_is_ended_with_its_worker(self, bench, tmp_path, job):
        before = await bench.worker()
        outcome = await bench.run(job, str(tmp_path / "there"), timeout_s=0.3)
        assert (outcome.cause, outcome.error) == ("timeout", "exceeded 0.3 s and was ended")
        assert not before.runs()
        assert (await bench.run("add", 1, 2)).ok

    @pytest.mark.parametrize("job", ["block", "swallow"])
    async def test_a_cancelled_job_is_ended_with_its_worker(self, bench, tmp_path, job):
        before = await bench.worker()
        running = asyncio.create_task(bench.run(job, str(tmp_path / "there")))
        while not (tmp_path / "there").exists():
            await asyncio.sleep(0.001)
        bench.cancel.set()
        outcome = await running
        assert (outcome.cause, outcome.ok) == ("cancelled", False)
        assert not before.runs()

    async def test_a_cancelled_caller_waits_until_the_worker_is_gone(self, bench, tmp_path):
        before = await bench.worker()
        running = asyncio.create_task(bench.run("block", str(tmp_path / "there")))
        while not (tmp_path / "there").exists():
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not before.runs()
        assert (await bench.run("add", 1, 2)).ok

    async def test_the_nova_stays_responsive_while_a_job_blocks(self, bench, tmp_path):
        running = asyncio.create_task(bench.run("block", str(tmp_path / "there"), timeout_s=0.3))
        turns = 0
        while not running.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns > 50

    async def test_children_that_a_job_leaves_are_ended_before_its_outcome(self, bench):
        before = await bench.worker()
        outcome = await bench.run("leave_children")
        assert outcome.ok
        assert not Path(f"/proc/{outcome.results}").exists()
        assert not before.runs()
        assert (await bench.run("add", 1, 2)).ok

    async def test_a_worker_that_died_idle_is_replaced(self, bench):
        before = await bench.worker()
        os.kill(before.pid, signal.SIGKILL)
        while before.runs() or not bench.executor._worker.lost:
            await asyncio.sleep(0.001)
        assert (await bench.run("add", 1, 2)).ok

    async def test_a_keeper_server_that_is_killed_costs_the_job_as_lost(
        self, bench, server, tmp_path
    ):
        running = asyncio.create_task(bench.run("block", str(tmp_path / "there")))
        while not (tmp_path / "there").exists():
            await asyncio.sleep(0.001)
        [keeper] = await server.keepers()
        stat = Path(f"/proc/{keeper['pid']}/stat").read_text()
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        assert (await running).cause == "lost"

    async def test_close_leaves_nothing(self, bench, server):
        before = await bench.worker()
        await bench.executor.close()
        assert not before.runs()
        assert await server.drain("torch:1", 5)


class TestContext:
    """What a job may ask of its Nova."""

    async def test_progress_is_heard_in_order(self, bench):
        await bench.run("progress")
        assert bench.report.heard == [(50, "half"), (None, "more")]

    async def test_a_request_has_a_permit_and_reports_its_end(self, bench):
        outcome = await bench.run("request", 0.25)
        await asyncio.sleep(0)
        assert outcome.results == 1
        assert bench.report.heard == [("asked", 0.25), ("done", 1, True)]

    async def test_a_request_that_raises_is_reported_as_failed(self, bench):
        outcome = await bench.run("request_and_fail")
        await asyncio.sleep(0)
        assert outcome.error == "ConnectionError: upstream"
        assert bench.report.heard == [("asked", None), ("done", 1, False)]

    async def test_a_permit_that_a_dying_worker_held_is_given_back_as_failed(self, bench):
        outcome = await bench.run("request_and_die")
        await asyncio.sleep(0)
        assert outcome.cause == "crash"
        assert bench.report.heard == [("asked", None), ("done", 1, False)]

    async def test_a_refusal_reaches_the_job(self, bench):
        bench.report.refuse = True
        outcome = await bench.run("request", 9.0)
        assert outcome.error == "PermitRefused: the budget is spent"

    async def test_coroutines_and_threads_may_request_at_once(self, bench):
        outcome = await bench.run("requests_at_once", 5)
        await asyncio.sleep(0)
        assert sorted(outcome.results) == [1, 2, 3, 4, 5, 6]
        done = [heard[1] for heard in bench.report.heard if heard[0] == "done"]
        assert sorted(done) == [1, 2, 3, 4, 5, 6]


class TestAnswers:
    """What a job tells of a provider's answers, and how it says that it cannot go on."""

    async def test_all_that_is_asked_and_answered_reaches_the_nova(self, bench):
        outcome = await bench.run("ask_all")
        await asyncio.sleep(0)
        assert outcome.results == ["retry-after", "x-ratelimit-remaining-requests"]
        assert bench.report.asks == [ApiAsk("anthropic/alice", None, 7, "m")]
        assert bench.report.answers == [
            ApiAnswer(ok=True, status=200, retry_after_s=17.0, cost_usd=0.5, tokens=5)
        ]

    @pytest.mark.parametrize(
        ("job", "args", "cause", "status", "after_s"),
        [
            ("sent_away", (12.5, None), "rate_limit", 429, 12.5),
            ("sent_away", (None, None), "rate_limit", 429, None),
            ("sent_away", (None, {"Retry-After": "40"}), "rate_limit", 429, 40.0),
            ("sent_away", (12.5, {"Retry-After": "40"}), "rate_limit", 429, 12.5),
            ("sent_away_in_a_group", (), "rate_limit", 429, 9.0),
            ("unknown_login", (), "auth", 401, None),
            ("too_long", (), "context", 400, None),
        ],
    )
    async def test_an_error_of_ours_is_the_cause_and_the_status(
        self, bench, job, args, cause, status, after_s
    ):
        outcome = await bench.run(job, *args)
        await asyncio.sleep(0)
        assert (outcome.ok, outcome.cause) == (False, cause)
        assert [answer.status for answer in bench.report.answers] == [status]
        if after_s is None:
            assert outcome.retry_after_s is None
        else:
            assert after_s - 5 < outcome.retry_after_s <= after_s

    async def test_the_advice_of_one_job_is_not_the_nexts(self, bench):
        await bench.run("sent_away", None, {"Retry-After": "40"})
        assert (await bench.run("sent_away", None, None)).retry_after_s is None


class TestRequestTimeOut:
    """No request outlasts its permit: its place is about to be given to another."""

    @pytest.mark.parametrize("job", ["slow_request", "slow_request_async"])
    async def test_a_body_that_takes_too_long_is_interrupted(self, bench, job):
        before = await bench.worker()
        bench.report.times = {"timeout_s": 0.2}
        outcome = await bench.run(job, 60)
        await asyncio.sleep(0)
        assert "longer than the 0.2 s that its permit allows" in outcome.results
        assert [answer.ok for answer in bench.report.answers] == [False]
        bench.report.times = {"timeout_s": 30}
        assert (await bench.run(job, 0)).results is None
        assert await bench.worker() == before

    async def test_of_two_requests_one_inside_the_other_each_has_its_own_time(self, bench):
        bench.report.times = {"timeout_s": 0.3}
        assert (await bench.run("nested_requests")).results == ["inner", "outer timed out"]

    @pytest.mark.parametrize("job", ["deaf_request", "request_in_a_thread"])
    async def test_what_cannot_be_interrupted_is_ended_before_the_place_is_given_away(
        self, bench, tmp_path, job
    ):
        before = await bench.worker()
        left_ms = OVERDUE_MS + 300
        bench.report.times = {"timeout_s": 0.1, "start_in_ms": 1000, "ends_in_ms": left_ms}
        began_s = monotonic_s()
        outcome = await bench.run(job, str(tmp_path / "there"))
        await asyncio.sleep(0)
        assert (outcome.cause, outcome.ok) == ("timeout", False)
        assert outcome.error == "an API request did not end with its permit, and was ended"
        assert 0.3 <= monotonic_s() - began_s < left_ms / 1000
        assert not before.runs()
        assert [answer.ok for answer in bench.report.answers] == [False]
        assert (await bench.run("add", 1, 2)).ok

    @pytest.mark.parametrize("job", ["request", "requests_at_once"])
    async def test_a_permit_that_reaches_the_job_too_late_is_not_used(self, bench, job):
        bench.report.times = {"start_in_ms": -1}
        outcome = await bench.run(job, 1)
        await asyncio.sleep(0)
        assert outcome.ok
        heard = bench.report.heard
        void = [entry[1] for entry in heard if entry[0] == "void"]
        used = [entry[1] for entry in heard if entry[0] == "done"]
        assert void
        assert not set(void) & set(used)


async def test_no_keeper_server_is_the_outcome_away(tmp_path):
    executor = PythonExecutor(KeeperClient(tmp_path / "none"), SETTINGS, {}, sys.executable)
    outcome = await Bench(executor, tmp_path).run("noop")
    assert outcome.cause == "away"
    assert "does not answer" in outcome.error


def test_the_worker_imports_next_to_nothing_of_ours(tmp_path):
    code = (
        "import sys, novawf.executors.python_worker;"
        "print(sorted(m for m in sys.modules if m.startswith(('novawf', 'asyncio', 'pydantic'))))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(out.stdout) == [
        "novawf",
        "novawf.executors",
        "novawf.executors.context",
        "novawf.executors.python_worker",
        "novawf.processes",
        "novawf.processes.output",
        "novawf.processes.wire",
    ]


class TestStarts:
    """A job begins within its time or not at all; the worker itself looks, last of all."""

    async def test_in_time_it_begins_and_its_nova_can_tell(self, bench, tmp_path):
        await bench.worker()
        start, mark = Start(boottime_s() + 30), tmp_path / "mark"
        job = asyncio.ensure_future(bench.run("block", str(mark), start=start))
        await until(mark.exists)
        assert start.settles_in_s() <= SETTLE_S  # it is known to have begun
        start.end(0)
        bench.cancel.set()
        assert (await job).cause == "cancelled"

    async def test_too_late_it_does_not(self, bench):
        outcome = await bench.run("add", 1, 2, start=Start(boottime_s() - 0.01))
        assert outcome == NOT_BEGUN

    async def test_a_worker_that_was_stopped_meanwhile_begins_nothing_late(self, bench, tmp_path):
        worker = await bench.worker()
        start, mark = Start(boottime_s() + 0.1), tmp_path / "mark"
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            job = asyncio.ensure_future(bench.run("block", str(mark), start=start))
            await until(lambda: boottime_s() > start.by_s)
            assert not job.done()
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        assert (await job).cause == "late"
        assert not mark.exists()

    async def test_what_is_revoked_while_a_worker_starts_is_not_sent_to_it(self, bench, tmp_path):
        start, mark = Start(boottime_s() + 30), tmp_path / "mark"
        job = asyncio.ensure_future(bench.run("block", str(mark), start=start))
        await asyncio.sleep(0)  # it has begun to start a worker
        start.revoke()
        assert start.settles_in_s() == 0
        assert (await job) == NOT_BEGUN
        assert not mark.exists()

    async def test_a_coroutine_s_first_line_comes_right_after_the_look(self, bench):
        assert (await bench.run("add_async", 1, 2, start=Start(boottime_s() + 30))).results == 3
        assert (await bench.run("add_async", 1, 2, start=Start(0.0))).cause == "late"
