"""An attempt from its claim to what the queue is told: who cut it short, and how it ended."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from novawf.clock import ManualClock
from novawf.executors.base import Outcome, Report, Work
from novawf.limits.request import OK as APPROVED
from novawf.limits.request import ApiAnswer, ApiAsk
from novawf.tasks.claims import Claim
from novawf.tasks.config import TaskSettings
from novawf.tasks.ending import Ending
from novawf.workflow.attempt import Attempt, AttemptRunner, Interruption

SETTINGS = TaskSettings(backoff_base_s=1.0)
SPEC = {"title": "t", "callable": "a:b"}

COMPLETED = Ending("completed", "succeeded")
BACK = Ending("requeue", "")
AGAIN = Ending("retry", "", 0.5)
FAILED = Ending("blocked", "failed")
CANCELLED = Ending("blocked", "cancelled")

OK = Outcome(ok=True)
FAULT = Outcome(ok=False, cause="failed", error="exit code 1", exit_code=1)
CUT = Outcome(ok=False, cause="cancelled", error="cancelled and ended")
AWAY = Outcome(ok=False, cause="away", error="there is no keeper server")
GONE = Outcome(ok=False, cause="lost", error="the keeper went away")


def claim(attempt: int = 1, limit: int = 4, **spec: Any) -> Claim:
    return Claim("T-1-000001", 3, attempt, limit, 0, "2023-11-14T22:13:20.000Z", {**SPEC, **spec})


def attempt_with(outcome: Outcome | None, cut_by: Interruption = "", **spec: Any) -> Attempt:
    attempt = Attempt(claim(**spec))
    attempt.begun = True
    attempt.outcome = outcome
    if cut_by:
        attempt.interrupt(cut_by)
    return attempt


@pytest.mark.parametrize(
    ("cut_by", "outcome", "ending"),
    [
        ("", OK, COMPLETED),
        ("", FAULT, AGAIN),
        ("", CUT, CANCELLED),
        ("", GONE, AGAIN),
        ("", None, AGAIN),
        ("", AWAY, BACK),
        ("cancelled", AWAY, BACK),  # as for any failure: the queue knows better
        ("handed_back", AWAY, BACK),
        ("cancelled", OK, COMPLETED),  # it was done before it could be cut
        ("cancelled", CUT, CANCELLED),
        ("cancelled", FAULT, AGAIN),  # the queue knows of the cancellation, and ends it blocked
        ("handed_back", OK, COMPLETED),
        ("handed_back", CUT, BACK),
        ("handed_back", FAULT, BACK),
        ("handed_back", GONE, BACK),
        ("stopped", OK, COMPLETED),
        ("stopped", CUT, BACK),
        ("stopped", GONE, BACK),
    ],
)
def test_who_cut_it_and_how_it_ended_decide(
    cut_by: Interruption, outcome: Outcome | None, ending: Ending
) -> None:
    assert attempt_with(outcome, cut_by).ending(SETTINGS, 0.0) == ending


@pytest.mark.parametrize("cut_by", ["handed_back", "stopped"])
@pytest.mark.parametrize(
    ("begun", "spec", "default", "ending"),
    [
        (True, {"retries": 0}, 3, FAILED),
        (True, {"retries": 1}, 3, BACK),
        (True, {}, 0, FAILED),
        (True, {}, 3, BACK),
        (True, {"retries": 1}, 0, BACK),
        (False, {"retries": 0}, 3, BACK),
    ],
)
def test_what_may_run_at_most_once_goes_back_only_if_it_did_not_begin(
    cut_by: Interruption, begun: bool, spec: dict[str, int], default: int, ending: Ending
) -> None:
    attempt = attempt_with(CUT, cut_by, **spec)
    attempt.begun = begun
    assert attempt.ending(TaskSettings(retries=default), 0.0) == ending


def test_the_last_attempt_is_not_repeated() -> None:
    assert attempt_with(FAULT, attempt=4).ending(SETTINGS, 0.0) == FAILED


def test_what_was_handed_back_counts_as_no_attempt_for_the_pause_before_the_next() -> None:
    attempt = attempt_with(FAULT, attempt=7, limit=10)
    assert (
        attempt.ending(SETTINGS, 0.0).delay_s == attempt_with(FAULT).ending(SETTINGS, 0.0).delay_s
    )
    assert attempt_with(FAULT, attempt=10, limit=10).ending(SETTINGS, 0.0) == FAILED


def test_a_task_that_nothing_can_run_ends_blocked_however_many_attempts_are_left() -> None:
    attempt = attempt_with(Outcome(ok=False, cause="not_found", error="no executor"))
    attempt.no_executor = True
    assert attempt.ending(SETTINGS, 0.0) == Ending("blocked", "no_executor")


@pytest.mark.parametrize(
    ("reasons", "stands"),
    [
        (["cancelled"], "cancelled"),
        (["stopped", "cancelled"], "stopped"),
        (["handed_back", "stopped"], "handed_back"),
        (["cancelled", "lost"], "lost"),
        (["lost", "cancelled"], "lost"),
    ],
)
def test_the_first_reason_stands_but_a_loss_overrides_all(
    reasons: list[Interruption], stands: str
) -> None:
    attempt = Attempt(claim())
    for reason in reasons:
        attempt.interrupt(reason)
    assert attempt.interruption == stands
    assert attempt.cancel.is_set()


@pytest.mark.parametrize(
    ("outcome", "cut_by", "detail"),
    [
        (None, "", ""),
        (OK, "", "done"),
        (Outcome(ok=True, exit_code=0), "", "exit 0"),
        (FAULT, "", "exit code 1"),
        (CUT, "handed_back", "handed back"),
        (CUT, "cancelled", "cancelled"),
        (OK, "cancelled", "done"),
    ],
)
def test_the_history_line_says_how_it_ended(
    outcome: Outcome | None, cut_by: Interruption, detail: str
) -> None:
    assert attempt_with(outcome, cut_by).detail() == detail


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [
        (FAULT, {"exit_code": 1, "cause": "failed", "error": "exit code 1"}),
        (Outcome(ok=True, results=[1, {"a": None}]), {"results": [1, {"a": None}], "error": ""}),
        (Outcome(ok=True, stdout_tail="ü\udcff\n"), {"stdout_tail": "ü\udcff\n"}),
        (Outcome(ok=True, results=0), {"results": 0}),
    ],
)
def test_the_result_is_json_that_reads_back(
    outcome: Outcome | None, fields: dict[str, Any]
) -> None:
    text = attempt_with(outcome).result_json("torch")
    text.encode()
    kept = json.loads(text)
    assert {name: kept[name] for name in fields} == fields


@pytest.mark.parametrize("outcome", [None, OK])
def test_who_has_nothing_to_tell_leaves_no_result(outcome: Outcome | None) -> None:
    assert attempt_with(outcome).result_json("torch") == ""


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("results", [object(), {1, 2}, nested(100_000)])
def test_results_that_are_no_json_are_left_out_with_the_reason(results: Any) -> None:
    kept = json.loads(attempt_with(Outcome(ok=True, results=results)).result_json("torch"))
    assert kept["results"] is None
    assert kept["error"].startswith("(results: ")


class Recorder:
    """An executor that notes what it was given and answers what the test wants."""

    name = "python"

    def __init__(self, outcome: Outcome = OK, reports: bool = False) -> None:
        self.outcome = outcome
        self.reports = reports
        self.works: list[Work] = []

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        self.works.append(work)
        if self.reports:
            report.progress(50, "half")
            report.alive()
        return self.outcome

    async def close(self) -> None:
        """Nothing is kept."""


class Limiter:
    """Grants a permit to everybody and notes who asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.start_by_ms: list[int] = []
        """Of the first grants, where it is not far away."""

    async def acquire(self, tier: str, caller: str, limit: str) -> dict[str, Any]:
        self.calls.append(("acquire", tier, caller, limit))
        start_by_ms = self.start_by_ms.pop(0) if self.start_by_ms else 2**53
        expires_at_ms = start_by_ms + 35_000
        return {
            "id": "p1", "limit": limit, "start_by_ms": start_by_ms, "expires_at_ms": expires_at_ms,
        }  # fmt: skip

    async def release(self, permit_id: str, answer: ApiAnswer, limit: str) -> None:
        self.calls.append(("release", permit_id, answer.ok, limit))

    async def void(self, permit_id: str, limit: str) -> None:
        self.calls.append(("void", permit_id, limit))


class Bench:
    def __init__(self, clock: ManualClock, **settings: Any) -> None:
        self.executor = Recorder()
        self.clock = clock
        self.asked: list[str] = []
        self.posts: list[tuple[float | None, str]] = []
        self.limiter: Limiter | None = Limiter()
        self.settings = TaskSettings(**settings)

    def choose(self, name: str) -> Recorder:
        self.asked.append(name)
        return self.executor

    async def run(self, attempt: Attempt) -> Outcome:
        return await self.runner().run(attempt)

    def runner(self) -> AttemptRunner:
        return AttemptRunner(
            nova="torch",
            nova_epoch=7,
            log_dir=Path("/logs"),
            executor=self.choose,
            settings=self.settings,
            clock=self.clock,
            limiter=self.limiter,
            post_progress=lambda _, percent, text: self.posts.append((percent, text)),
        )


async def test_the_executor_gets_the_whole_task_under_its_owners_stamp(clock: ManualClock) -> None:
    bench = Bench(clock)
    spec = {
        "title": "t", "argv": ["ls", "-l"], "cwd": "/tmp", "env": {"A": "B"}, "timeout_s": 5.0,
    }  # fmt: skip
    attempt = Attempt(Claim("T-1-000001", 3, 2, 4, 0, "", spec))
    assert await bench.run(attempt) is OK
    assert attempt.outcome is OK
    assert attempt.begun
    assert bench.asked == ["command"]
    work = bench.executor.works[0]
    assert (work.task_id, work.attempt, work.nova, work.stamp) == (
        "T-1-000001", 2, "torch", "torch:7",
    )  # fmt: skip
    assert work.log_path == "/logs/T-1-000001.2.log"
    assert (work.argv, work.cwd, work.env, work.timeout_s) == (
        ("ls", "-l"), "/tmp", {"A": "B"}, 5.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "default", "asked"),
    [
        ({"title": "t"}, None, []),
        ({"title": "t"}, "command", []),  # there is nothing in it that a command could be
        ({"title": "t", "executor": "python", "callable": "a:b"}, None, ["python"]),
        ({"title": "t", "callable": "a:b"}, "command", ["python"]),
        ({"title": "t", "argv": ["true"]}, "python", ["command"]),
    ],
)
async def test_the_tasks_own_executor_is_chosen_before_the_default(
    clock: ManualClock, spec: dict[str, Any], default: Any, asked: list[str]
) -> None:
    bench = Bench(clock, default_executor=default)
    attempt = Attempt(Claim("T-1-000001", 3, 1, 4, 0, "", spec))
    await bench.run(attempt)
    assert bench.asked == asked
    assert attempt.no_executor == (not asked)


async def test_what_was_cut_before_it_began_does_not_begin(clock: ManualClock) -> None:
    bench = Bench(clock)
    attempt = Attempt(claim())
    attempt.interrupt("stopped")
    outcome = await bench.run(attempt)
    assert (outcome.ok, outcome.cause) == (False, "cancelled")
    assert bench.executor.works == []
    assert not attempt.begun


async def test_reports_are_signs_of_life_and_are_posted(clock: ManualClock) -> None:
    bench = Bench(clock)
    bench.executor = Recorder(reports=True)
    attempt = Attempt(claim())
    await bench.run(attempt)
    assert bench.posts == [(50, "half")]
    assert attempt.last_sign_ms == clock.now_ms()


class Asks(Recorder):
    """Makes one request under a permit; keeps what it met."""

    def __init__(self, cost_usd: float = 0.0) -> None:
        super().__init__()
        self.cost_usd = cost_usd

    async def run(self, work: Work, report: Report, cancel: asyncio.Event) -> Outcome:
        permit = await report.api_request(ApiAsk("anthropic", self.cost_usd))
        await report.api_done(permit, APPROVED)
        return OK


async def test_requests_wait_for_the_limiter_in_the_tasks_tier(clock: ManualClock) -> None:
    bench = Bench(clock)
    bench.executor = Asks()
    await bench.run(Attempt(claim(priority="high")))
    assert bench.limiter is not None
    assert bench.limiter.calls == [
        ("acquire", "high", "torch", "anthropic"), ("release", "p1", True, "anthropic"),
    ]  # fmt: skip


async def test_a_permit_that_comes_too_late_is_voided_and_asked_for_anew(
    clock: ManualClock,
) -> None:
    bench = Bench(clock)
    bench.executor = Asks()
    assert bench.limiter is not None
    bench.limiter.start_by_ms = [clock.now_ms() - 1, clock.now_ms()]
    await bench.run(Attempt(claim()))
    assert [call[0] for call in bench.limiter.calls] == ["acquire", "void", "acquire", "release"]


@pytest.mark.parametrize(
    ("retries", "retry_after_s", "ending"),
    [
        (3, 17.0, Ending("requeue", "", 17.0)),
        (3, None, Ending("requeue", "", 0.5)),
        (0, 17.0, FAILED),  # it runs at most once
    ],
)
def test_what_a_provider_sent_away_goes_back_until_it_may_come_again(
    retries: int, retry_after_s: float | None, ending: Ending
) -> None:
    sent_away = Outcome(ok=False, cause="rate_limit", error="429", retry_after_s=retry_after_s)
    attempt = attempt_with(sent_away, retries=retries, limit=1 + retries)
    assert attempt.ending(SETTINGS, 0.0) == ending


@pytest.mark.parametrize(
    ("retries", "retry_after_s", "ending"),
    [
        (3, 17.0, Ending("requeue", "", 17.0)),
        (3, 80_000.0, Ending("requeue", "", 80_000.0)),
        (3, None, FAILED),  # only a higher cap would help
        (0, 17.0, FAILED),  # it runs at most once
    ],
)
def test_what_a_budget_had_no_money_for_goes_back_until_its_window_ends(
    retries: int, retry_after_s: float | None, ending: Ending
) -> None:
    spent = Outcome(ok=False, cause="budget", error="spent", retry_after_s=retry_after_s)
    attempt = attempt_with(spent, retries=retries, limit=1 + retries)
    assert attempt.ending(SETTINGS, 0.0) == ending


async def test_a_request_without_a_limiter_is_refused(clock: ManualClock) -> None:
    bench = Bench(clock)
    bench.executor, bench.limiter = Asks(), None
    with pytest.raises(RuntimeError, match="no request may be made"):
        await bench.run(Attempt(claim()))


def test_an_attempt_knows_since_when_it_waits_for_permits() -> None:
    """Of several requests in line the first counts, until the last one has its permit."""
    attempt = Attempt(claim())
    attempt.waits_for_permit(1, 100)
    attempt.waits_for_permit(1, 200)
    attempt.waits_for_permit(-1, 0)
    assert attempt.permit_since_ms == 100
    attempt.waits_for_permit(-1, 0)
    assert attempt.permit_since_ms == 0
