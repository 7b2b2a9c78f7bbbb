"""The retention sweep: ended tasks leave the store for the archive once they are old enough."""

from __future__ import annotations

from typing import Any, Final

from novawf.errors import CorruptState, Refused
from novawf.limits.budget import Budgets
from novawf.limits.budget_config import BudgetSettings
from novawf.work.jobs.table import JobContext

SWEEP_S: Final = 0.5
"""A sweep that is not through by then goes on the next time."""


async def sweep(context: JobContext, args: tuple[Any, ...]) -> dict[str, Any]:
    """`{"tasks", "bytes", "logs", "done"}`: what left, and whether that was all; `budgets`: how
    much of them is past and was forgotten."""
    budgets: dict[str, Any]
    try:
        budgets = {"budgets": await Budgets(context.redis, context.clock, BudgetSettings()).sweep()}
    except CorruptState as error:  # it says what mends it, and paid calls say it too
        budgets = {"budgets": str(error)}
    if context.archive is None:
        return {"skipped": "this Nova has no archive", **budgets}
    try:
        swept = await context.archive.sweep(SWEEP_S)
    except Refused as error:  # a full disk, say: the next slot finds out whether it is mended
        return {"skipped": str(error), **budgets}
    return swept._asdict() | budgets
