"""Commands about tasks that exist: `tasks`, `task`, `cancel`, `retry`, `approve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.output import duration, pairs, printable, table
from novawf.errors import UserError
from novawf.tasks.tracker import STATUSES

_TaskId = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to `app`."""
    command(
        app,
        "tasks",
        "novawf tasks",
        "novawf tasks --status blocked --nova torch",
        "novawf tasks --json | jq -r '.[].task_id'",
        "novawf tasks --quarantined  # what others put into streams and nobody could use",
    )(tasks)
    command(app, "task", "novawf task TORCH-1760000000-00002a", "novawf task ID --json")(task)
    command(app, "cancel", "novawf cancel TORCH-1760000000-00002a")(cancel)
    command(
        app, "retry", "novawf retry TORCH-1760000000-00002a  # with fresh attempts"
    )(retry)  # fmt: skip
    command(app, "approve", "novawf approve TORCH-1760000000-00002a")(approve)


async def tasks(
    call: Invocation,
    status: Annotated[
        str | None, typer.Option(metavar="S", help="pending, in_progress, completed or blocked.")
    ] = None,
    nova: Annotated[
        str | None, typer.Option(metavar="NAME", help="Aimed at this Nova, or in its hands.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many.")] = None,
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="Stream entries that were refused, instead.")
    ] = False,
    archived: Annotated[
        bool, typer.Option("--archived", help="Those that have left the store, instead.")
    ] = False,
) -> None:
    """List tasks, the oldest first; those of the archive in the order in which they got there."""
    if quarantined and archived:
        raise UserError("--quarantined, --archived: give one of them")
    if quarantined:
        if status is not None or nova is not None:
            raise UserError("--quarantined: refused entries have no status and no Nova")
        await _quarantined(call, limit)
        return
    if status is not None and status not in STATUSES:
        raise UserError(f"--status: {status!r} is unknown; known are {', '.join(STATUSES)}")
    async with call.fleet() as fleet:
        if archived:
            wanted = _selected((await fleet.archive()).tasks(), status, nova)
            rows = list(islice(wanted, limit))
        else:
            rows = await fleet.tasks(status=status, nova=nova, limit=limit)
    if call.json or rows:
        call.out.show(rows, table(_COLUMNS, map(_row, rows)))
    else:
        call.out.note("no such tasks")


def _selected(
    found: Iterator[dict[str, Any]], status: str | None, nova: str | None
) -> Iterator[dict[str, Any]]:
    for row in found:
        if status in (None, row["status"]) and nova in (None, row["assignee"], row["nova"]):
            yield row


async def _quarantined(call: Invocation, limit: int | None) -> None:
    async with call.fleet() as fleet:
        rows = await fleet.quarantined(limit)
    if call.json or rows:
        shown = [(row["at"], row["stream"], row["id"], row["reason"]) for row in rows]
        call.out.show(rows, table(("AT", "STREAM", "ENTRY", "REASON"), shown))
    else:
        call.out.note("nothing was refused")


async def task(call: Invocation, task_id: _TaskId) -> None:
    """Show all about one task: its state, attempts, the end of its output, its history."""
    async with call.fleet() as fleet:
        view = await fleet.task(task_id)
    call.out.show(view, *task_lines(view))


async def cancel(call: Invocation, task_id: _TaskId) -> None:
    """Cancel a task that waits or runs; what waits for it is blocked too."""
    async with call.fleet() as fleet:
        outcome = await fleet.cancel(task_id)
    said = "cancelled" if outcome == "blocked" else "its Nova was told to end it"
    call.out.show({"task_id": task_id, "state": outcome}, f"{task_id}: {said}")


async def retry(call: Invocation, task_id: _TaskId) -> None:
    """Take a blocked task up again, and what was blocked by it."""
    async with call.fleet() as fleet:
        await fleet.retry(task_id)
    call.out.show({"task_id": task_id, "state": "pending"}, f"{task_id}: pending again")


async def approve(call: Invocation, task_id: _TaskId) -> None:
    """Let a task start that waits for approval."""
    async with call.fleet() as fleet:
        await fleet.approve(task_id)
    call.out.show({"task_id": task_id, "state": "pending"}, f"{task_id}: approved, pending")


_RESULTS_SHOWN = 200
_COLUMNS = ("TASK", "STATUS", "OUTCOME", "PRIORITY", "NOVA", "ATTEMPTS", "TITLE")


def _row(row: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["task_id"],
        row["status"],
        row["outcome"],
        row["priority"],
        row["owner"] or row["nova"],
        row["attempts"],
        row["title"],
    )


def task_lines(view: dict[str, Any]) -> list[str]:
    """A task for people."""
    outcome = f" ({view['outcome']})" if view["outcome"] else ""
    known = [
        ("task", view["task_id"]),
        ("title", view["title"]),
        ("description", view["description"]),
        ("status", view["status"] + outcome + (", being cancelled" if view["cancelling"] else "")),
        ("priority", view["priority"]),
        ("nova", view["owner"] or view["nova"] or _last_nova(view)),
        ("executor", view["executor"]),
        ("attempts", f"{view['attempts']} of {view['attempts_allowed']}"),
        ("after", ", ".join(view["after"])),
        ("waits for", _count_text(view["waiting_for"])),
        ("deadline", view.get("deadline")),
        ("exit code", view["exit_code"]),
        ("results", _results_text(view.get("results"))),
        ("created", view["created_at"]),
        ("updated", view["updated_at"]),
    ]
    lines = [pairs([(name, value) for name, value in known if value not in (None, "")])]
    if view["history"]:
        rows = [
            (event["at"], event["event"], event["nova"], event["attempt"], event["detail"])
            for event in view["history"]
        ]
        lines += ["", table(("AT", "EVENT", "NOVA", "ATTEMPT", "DETAIL"), rows)]
    lines += _tail_lines("end of its output", view["stdout_tail"])
    if check := view.get("accept"):
        verdict = "said yes" if check["ok"] else f"said no: {printable(check['error'])}"
        took = duration(check["duration_s"])
        lines += ["", f"its acceptance check {verdict} (after {took})"]
        lines += _tail_lines("end of the check's output", check["stdout_tail"])
    return lines


def _last_nova(view: dict[str, Any]) -> str | None:
    """Who had it last; None for a task that nobody had."""
    return (view.get("last_attempt") or {}).get("nova")


def _results_text(results: Any) -> str | None:
    """What a callable returned, as far as it fits a line or two."""
    text = None if results is None else json.dumps(results, ensure_ascii=False)
    return text if text is None or len(text) <= _RESULTS_SHOWN else f"{text[:_RESULTS_SHOWN]}…"


def _tail_lines(what: str, tail: str) -> list[str]:
    shown = [f"  {printable(line)}" for line in tail.rstrip("\n").split("\n")]
    return ["", f"{what}:", *shown] if tail.strip("\n") else []


def _count_text(number: int) -> str:
    if number == 0:
        return ""
    return "1 task that is not completed" if number == 1 else f"{number} that are not completed"
