"""All built-in jobs, in the order in which momentum offers them, and how one is run.

Every one is bounded in what it reads, asks no API for anything, and answers within a second. The
comments name the kinds of spec §6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from novawf.errors import StoreUnreachable
from novawf.executors.maintenance import Job
from novawf.work.jobs.benchmark import benchmark_store
from novawf.work.jobs.insights import consolidate_insights
from novawf.work.jobs.report import report
from novawf.work.jobs.retention import sweep
from novawf.work.jobs.reviews import find_patterns, review_coordination, review_workflow
from novawf.work.jobs.safety import safety_check
from novawf.work.jobs.streams import statistics
from novawf.work.jobs.table import (
    DEADLINE_REVIEW,
    FAILURE_REVIEW,
    BuiltInJob,
    JobContext,
    Run,
)
from novawf.work.jobs.troubles import review_deadlines, review_failures

HALF_H: Final = 1800.0
HOUR: Final = 3600.0

BUILT_IN: Final = (
    # validate the safety systems
    BuiltInJob(
        "safety_check",
        "Check that gate, limits, leases and counts agree",
        "Reads what claims and limits rest on, and reports every contradiction.",
        safety_check,
        HALF_H,
    ),
    # analyse stream coordination patterns
    BuiltInJob(
        "stream_statistics",
        "Measure the streams: length, growth, lag",
        "How long each protocol stream is, how fast it grows, and where readers are behind.",
        statistics,
        HALF_H,
    ),
    # optimize cross-Nova coordination
    BuiltInJob(
        "coordination_review",
        "Review who waits for whom",
        "Idle and busy Novas, tasks that wait for one Nova or for other tasks, blocked ones.",
        review_coordination,
        HOUR,
    ),
    # enrich enterprise reports
    BuiltInJob(
        "report",
        "Report tasks, throughput and protocol compliance",
        "Counts, throughput of the last hour, durations and compliance.",
        report,
        HOUR,
    ),
    # review and optimize workflow components
    BuiltInJob(
        "workflow_review",
        "Review states, attempts and latencies of the workflow",
        "Time in states, cycles, repeated attempts, latencies, and what stands out.",
        review_workflow,
        HOUR,
    ),
    # update documentation with recent insights
    BuiltInJob(
        "insight_consolidation",
        "Consolidate recent insights",
        "Draws this Nova's new reflections together into one insight.",
        consolidate_insights,
        HOUR,
        per_nova=True,
    ),
    # research behaviour patterns
    BuiltInJob(
        "behaviour_patterns",
        "Look for patterns in what was done",
        "Who did how much, when, what is repeated, what fails.",
        find_patterns,
        HOUR,
    ),
    BuiltInJob(
        "retention_sweep",
        "Move old ended tasks to the archive",
        "What ended longer than the retention ago leaves the store for files.",
        sweep,
        HOUR,
    ),
    BuiltInJob(
        "store_benchmark",
        "Benchmark the store",
        "Latency of small calls from this Nova to the store.",
        benchmark_store,
        HOUR,
    ),
    BuiltInJob(
        FAILURE_REVIEW,
        "Review failures of one cause",
        "What stands of them and what they have in common.",
        review_failures,
    ),
    BuiltInJob(
        DEADLINE_REVIEW,
        "Look into tasks that are due soon and have not begun",
        "What each of them waits for.",
        review_deadlines,
    ),
)
"""Name, title, description, function, interval."""


def maintenance_jobs(context: JobContext) -> Mapping[str, Job]:
    """The jobs as the maintenance executor runs them."""
    return {job.name: _bound(job.run, context) for job in BUILT_IN}


def _bound(run: Run, context: JobContext) -> Job:
    async def job(args: tuple[Any, ...]) -> dict[str, Any]:
        try:
            return await run(context, args)
        except (StoreUnreachable, RedisConnectionError, RedisTimeoutError, OSError) as error:
            # The job comes again with its next slot: no dead letter for an outage of the store.
            return {"skipped": f"the store was away: {error}"}

    return job
