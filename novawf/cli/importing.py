"""`novawf import`: a file of tasks into the queue, all of it validated before any of it is sent.

Reading the formats is `novawf.tasks.importing`'s work. Every task is submitted under a request id
made from the file's path, its content and the task's place in it. So an import that broke off is
finished by repeating it, and a repeated one adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novawf import ids
from novawf.cli.command import Invocation, command
from novawf.cli.control import who
from novawf.cli.output import counted, table
from novawf.cli.submit import working_directory
from novawf.errors import InvalidImport, InvalidTask

if TYPE_CHECKING:
    from novawf.client import Fleet
    from novawf.tasks.importing import Draft, ImportPlan, Skipped
    from novawf.tasks.model import TaskSpec

PROGRESS_EVERY = 200
"""Tasks between two updates of the line on the terminal."""
_SHOWN_SKIPPED = 20
"""Left-out lines that are listed for people; `--json` has them all."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(
        app,
        "import",
        "novawf import jobs.jsonl",
        "novawf import plan.md --command './do.sh {key} {title}' --dry-run",
        "novawf import urls.txt --command 'curl -fsSO {title}' --cwd downloads --nova echo",
    )(import_file)


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What the flags say about every task of the file."""

    template: str | None
    nova: str | None
    priority: str | None
    cwd: str | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A validated task and the draft it came from."""

    draft: Draft
    spec: TaskSpec


async def import_file(
    call: Invocation,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help=".jsonl tasks, .md check-lists or .txt lines."),
    ],
    template: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="TEMPLATE",
            help="How to run tasks that do not say; {title}, {key}, {owner}, {description}, "
            "{priority} and {parent} are filled in. No shell is involved.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be submitted; send nothing.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave broken lines out instead of refusing all.")
    ] = False,
    nova: Annotated[
        str | None, typer.Option(metavar="NAME", help="Aim all of them at this Nova.")
    ] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="Give all of them this priority.")
    ] = None,
    cwd: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Run all of them there. Default: their own, else here."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Import anew what was imported before.")
    ] = False,
) -> None:
    """Submit the tasks of a file in the order of their dependencies. Repeating it adds nothing."""
    from novawf.tasks.importing import parse_file  # noqa: PLC0415 - see the package's docstring

    plan = parse_file(file, skip_bad=skip_bad)
    ready, skipped = _validate(file, plan, _Wishes(template, nova, priority, cwd), skip_bad)
    if dry_run:
        _show_dry_run(call, file, ready, skipped)
        return
    requests = _Requests(file, ids.request_id() if again else "")
    async with call.fleet() as fleet:
        ready, skipped = await _check_references(fleet, file, ready, skipped, skip_bad)
        rows = await _submit(call, fleet, ready, requests)
        ids_of = [row["task_id"] for row in rows if row["created"]]
        fleet.audit.record(
            who=who(),
            action="tasks.import",
            target=str(file.absolute()),
            after={"imported": len(ids_of), "first": ids_of[:1], "last": ids_of[-1:]},
        )
    created = sum(row["created"] for row in rows)
    existing = len(rows) - created
    found = f", {existing:,} already there (--again imports anew)" if existing else ""
    idle = _without_work(ready)
    call.out.show(
        {
            "file": str(file),
            "imported": created,
            "existing": existing,
            "skipped": [item._asdict() for item in skipped],
            "without_executor": idle,
            "task_ids": [row["task_id"] for row in rows],
            "tasks": rows,
        },
        f"{file}: {counted(created, 'task')} imported{found}, {len(skipped):,} left out",
        *_skipped_lines(skipped),
    )
    _warn_without_work(call, idle)


class _Requests:
    """Request ids of one import: the same for the same draft of the same file."""

    def __init__(self, file: Path, salt: str) -> None:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        self._stem = f"{file.absolute()}\0{content}\0{salt}"

    def of(self, draft: Draft) -> str:
        """128 bits, as every request id has."""
        return hashlib.sha256(f"{self._stem}\0{draft.key}".encode()).hexdigest()[:32]


def _validate(
    file: Path, plan: ImportPlan, wishes: _Wishes, skip_bad: bool
) -> tuple[list[_Ready], list[Skipped]]:
    """All tasks of the plan, or InvalidImport naming the first that is none."""
    from novawf.tasks.importing import Skipped  # noqa: PLC0415 - see the package's docstring
    from novawf.tasks.model import TaskSpec  # noqa: PLC0415

    ready, skipped = [], list(plan.skipped)
    for draft in plan.drafts:
        try:
            spec = TaskSpec.parse(_fields(draft, wishes, file))
            spec.check_here()
        except InvalidTask as error:
            # A check-list is one whole: its tasks wait for each other.
            if not skip_bad or draft.after:
                raise InvalidImport(f"{file}:{draft.line}: {error}") from None
            skipped.append(Skipped(draft.line, draft.title, str(error)))
        else:
            ready.append(_Ready(draft, spec))
    return ready, sorted(skipped)


def _fields(draft: Draft, wishes: _Wishes, file: Path) -> dict[str, Any]:
    """The draft as raw fields of a task. The `after` of a check-list is added when it is sent."""
    from novawf.tasks.importing import render_command  # noqa: PLC0415

    fields = dict(draft.fields)
    if not fields:
        fields = {
            "title": draft.title,
            "description": draft.description,
            "priority": draft.priority,
            "metadata": _metadata(draft, file),
        }
    works = any(fields.get(name) is not None for name in ("argv", "callable", "executor"))
    if wishes.template is not None and not works:
        fields["argv"] = render_command(wishes.template, draft)
    cwd = wishes.cwd if wishes.cwd is not None else fields.get("cwd")
    if cwd is None or isinstance(cwd, str):  # what is no text is TaskSpec's to refuse
        fields["cwd"] = working_directory(cwd, runs_command=fields.get("argv") is not None)
    if wishes.nova is not None:
        fields["nova"] = wishes.nova
    if wishes.priority is not None:
        fields["priority"] = wishes.priority
    return {name: value for name, value in fields.items() if value is not None}


def _metadata(draft: Draft, file: Path) -> dict[str, Any]:
    metadata = {**draft.metadata, "key": draft.key, "source": f"{file.name}:{draft.line}"}
    if draft.owner is not None:
        metadata["owner"] = draft.owner
    if draft.estimate_s is not None:
        metadata["estimate_s"] = draft.estimate_s
    return metadata


async def _check_references(
    fleet: Fleet, file: Path, ready: list[_Ready], skipped: list[Skipped], skip_bad: bool
) -> tuple[list[_Ready], list[Skipped]]:
    """Every task that a line comes after must be there, before the first line is submitted."""
    from novawf.tasks.importing import Skipped  # noqa: PLC0415 - see the package's docstring

    known = await fleet.known(task_id for item in ready for task_id in item.spec.after)
    kept, left_out = [], list(skipped)
    for item in ready:
        missing = next((task_id for task_id in item.spec.after if task_id not in known), None)
        if missing is None:
            kept.append(item)
            continue
        rule = f"after: there is no task {missing}"
        if not skip_bad:
            raise InvalidImport(f"{file}:{item.draft.line}: {rule}")
        left_out.append(Skipped(item.draft.line, item.draft.title, rule))
    return kept, sorted(left_out)


async def _submit(
    call: Invocation, fleet: Fleet, ready: Sequence[_Ready], requests: _Requests
) -> list[dict[str, Any]]:
    """One after the other, because the order of admission is the order of equals in the queue."""
    rows: list[dict[str, Any]] = []
    task_ids: dict[str, str] = {}
    for number, item in enumerate(ready, start=1):
        draft, spec = item.draft, item.spec
        if draft.after:
            after = (*spec.after, *(task_ids[key] for key in draft.after))
            spec = spec.model_copy(update={"after": after})
        admission = await fleet.admit(spec, requests.of(draft))
        task_ids[draft.key] = admission.task_id
        rows.append(
            {
                "key": draft.key,
                "task_id": admission.task_id,
                "created": admission.created,
                "line": draft.line,
            }
        )
        if number % PROGRESS_EVERY == 0:
            call.out.progress(f"{number:,} of {len(ready):,}")
    call.out.progress("")
    return rows


def _show_dry_run(
    call: Invocation, file: Path, ready: Sequence[_Ready], skipped: Sequence[Skipped]
) -> None:
    document = {
        "file": str(file),
        "dry_run": True,
        "count": len(ready),
        "skipped": [item._asdict() for item in skipped],
        "without_executor": _without_work(ready),
        "tasks": [
            {
                "key": item.draft.key,
                "line": item.draft.line,
                "after_keys": list(item.draft.after),
                **item.spec.model_dump(mode="json", exclude_defaults=True),
            }
            for item in ready
        ],
    }
    rows = [
        (item.draft.key, item.spec.priority, ",".join(item.draft.after), item.spec.title)
        for item in ready
    ]
    call.out.show(
        document,
        table(("KEY", "PRIORITY", "AFTER", "TITLE"), rows),
        f"{file}: {counted(len(ready), 'task')} would be submitted, {len(skipped):,} left out",
        *_skipped_lines(skipped),
    )
    _warn_without_work(call, _without_work(ready))


def _without_work(ready: Sequence[_Ready]) -> int:
    return sum(item.spec.chosen_executor is None for item in ready)


def _warn_without_work(call: Invocation, count: int) -> None:
    if count:
        call.out.note(
            f"{counted(count, 'task')} without anything to run: without [tasks] default_executor "
            "they end blocked; --command says how to run them"
        )


def _skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    if not skipped:
        return []
    rows = [(item.line, item.reason, item.text) for item in skipped[:_SHOWN_SKIPPED]]
    lines = ["", table(("LINE", "LEFT OUT AS", "TEXT"), rows)]
    if len(skipped) > _SHOWN_SKIPPED:
        lines.append(f"… and {len(skipped) - _SHOWN_SKIPPED:,} more; --json lists all")
    return lines
