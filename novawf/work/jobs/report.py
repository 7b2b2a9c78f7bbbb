"""The report: how many tasks, how fast, how well the protocol was kept. No personal data."""

from __future__ import annotations

from typing import Any, Final

from novawf import ids
from novawf.clock import iso
from novawf.store import keys
from novawf.tasks.compliance import ComplianceCheck
from novawf.work.evidence import newest_records
from novawf.work.jobs.reviews import NOVAS, RECORDS, percentiles
from novawf.work.jobs.table import JobContext

HOUR_MS: Final = 3_600_000
STATUSES: Final = ("pending", "in_progress", "completed", "blocked")


async def report(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"generated_at", "tasks", "completed_last_hour", "at_least", "completion_rate",
    "duration_ms", "protocol", "novas"}`. `at_least`: there were more records than were read."""
    async with context.client.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.TASK_COUNTS)
        pipe.hkeys(keys.NOVAS)
        counts, names = await pipe.execute()
    novas = sorted(names)
    tasks = {status: max(0, int(counts.get(status, "0"))) for status in STATUSES}
    ended = tasks["completed"] + tasks["blocked"]
    streams = [keys.completed(name) for name in (ids.FLEET, *novas[:NOVAS])]
    since_ms = round(context.clock.wall_s() * 1000) - HOUR_MS
    last_hour, at_least = 0, False
    for records in (await newest_records(context.client, streams, RECORDS)).values():
        recent = [record for record in records if record.at_ms >= since_ms]
        last_hour += sum(record.fields.get("status") == "completed" for record in recent)
        at_least = at_least or len(recent) == RECORDS
    return {
        "generated_at": iso(context.clock.wall_s()),
        "novas": novas,
        "tasks": tasks,
        "completed_last_hour": last_hour,
        "at_least": at_least,
        "completion_rate": round(tasks["completed"] / ended, 4) if ended else None,
        "duration_ms": percentiles(counts, "duration"),
        "protocol": (await ComplianceCheck(context.redis).figure()).as_json(),
    }
