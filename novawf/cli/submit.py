"""`novawf submit`: one task from flags. What a task must be is decided by `TaskSpec`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.cli.control import who
from novawf.cli.output import printable
from novawf.errors import InvalidTask

if TYPE_CHECKING:
    from novawf.client import Fleet
    from novawf.tasks.model import TaskSpec

TITLE_CHARACTERS = 200
"""A title made from a command is cut here; the command itself stays whole."""

_RECORDED = {"title", "argv", "callable", "executor", "priority", "nova", "cwd"}
"""What the audit says of a task; the rest is in the task's own record."""

_HELP_NOT_YET = "Not available yet."


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(
        app,
        "submit",
        "novawf submit -- make -C /src/app test",
        'novawf submit --title "Nightly count" --priority high --wait -- ./count.sh data.csv',
        "novawf submit --after TORCH-1760000000-00002a --retries 0 -- ./publish.sh",
        'novawf submit --accept "test -s report.html" -- ./report.sh',
        "novawf submit --approval --deadline 2026-12-01T18:00 -- ./publish.sh",
        "novawf submit --python reports.daily:build --args '[\"2026-11-21\"]' --nova echo",
        "novawf submit --python reports.daily:summarize --budget-usd 0.50",
    )(submit)


async def submit(
    call: Invocation,
    argv: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- ARGV...", help="The command, after `--`; no shell is involved."),
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PKG.MOD:FUNC", help="Run a Python callable.")
    ] = None,
    args: Annotated[
        str | None, typer.Option(metavar="JSON", help="Its arguments, as a JSON array.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Default: the command itself.")] = None,
    description: Annotated[str | None, typer.Option(help="More about it, for people.")] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="critical, high, medium, low or background.")
    ] = None,
    nova: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this Nova may run it.")
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Wait until this task is completed. Repeatable."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Earliest start, ISO 8601; UTC unless it has a zone."),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(metavar="S", help="End an attempt after so many seconds.")
    ] = None,
    retries: Annotated[
        int | None, typer.Option(metavar="N", help="Re-runs after the first, crashes included.")
    ] = None,
    cwd: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where it runs. Default: this directory.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Into its environment. Repeatable."),
    ] = None,
    dedupe: Annotated[
        str | None, typer.Option(metavar="KEY", help="Submit only once under this key.")
    ] = None,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="command or python; implied by the work.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 when it ends blocked.")
    ] = False,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Completed only when this succeeds after the work; or python:PKG.MOD:FUNC.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not begun after it, and ended at it; ISO 8601."),
    ] = None,
    approval: Annotated[
        bool, typer.Option("--approval", help="It waits for `novawf approve`.")
    ] = False,
    prompt: Annotated[str | None, typer.Option(help=_HELP_NOT_YET)] = None,
    budget_usd: Annotated[
        float | None,
        typer.Option(metavar="X", help="What its paid calls may cost over all attempts, in USD."),
    ] = None,
) -> int | None:
    """Submit one task: a command after `--`, or a Python callable. Prints its id."""
    fields: dict[str, Any] = {
        "title": title,
        "description": description,
        "executor": executor,
        "argv": argv or None,
        "callable": python,
        "args": None if args is None else json_array(args),
        "priority": priority,
        "nova": nova,
        "after": after or None,
        "at": at,
        "timeout_s": timeout,
        "retries": retries,
        "cwd": working_directory(cwd, runs_command=bool(argv)),
        "env": environment(env or ()),
        "dedupe": dedupe,
        "prompt": prompt,
        "accept": accept,
        "deadline": deadline,
        "approval": approval or None,
        "budget_usd": budget_usd,
    }
    spec = validated({name: value for name, value in fields.items() if value is not None})
    async with call.fleet() as fleet:
        task_id = await fleet.submit(spec)
        said = spec.model_dump(mode="json", include=_RECORDED, exclude_defaults=True)
        fleet.audit.record(who=who(), action="task.submit", target=task_id, after=said)
        known = [] if spec.nova is None else await fleet.nova_names()
        if known and spec.nova not in known:
            call.out.note(
                f"note: the fleet has no Nova {spec.nova} now (it has {', '.join(known)}); "
                "the task waits for one"
            )
        if wait:
            return await _wait(call, fleet, task_id)
    call.out.show({"task_id": task_id}, task_id)
    return None


def working_directory(given: str | None, *, runs_command: bool) -> str | None:
    """Where a task runs, absolute: relative means relative to here, and a command runs here."""
    if given is not None:
        return str(Path(given).expanduser().absolute()) if given else given
    return os.getcwd() if runs_command else None  # noqa: PTH109 - pathlib asks the same way


def validated(fields: dict[str, Any]) -> TaskSpec:
    """The task that flags describe; its title is its work unless given. Raises InvalidTask."""
    from novawf.tasks.model import TaskSpec  # noqa: PLC0415 - see the package's docstring

    if "title" not in fields:
        fields["title"] = _title(fields)
    spec = TaskSpec.parse(fields)
    if spec.argv is None and spec.callable is None:
        raise InvalidTask("argv", "is empty: give a command after --, or --python PKG.MOD:FUNC")
    spec.check_here()
    return spec


def _title(fields: dict[str, Any]) -> str:
    """A title for who gave none: the command, or the callable."""
    work = shlex.join(fields.get("argv") or ()) or str(fields.get("callable", "task"))
    line = " ".join(work.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"


def json_array(text: str) -> list[Any]:
    """The value of `--args`. Raises InvalidTask."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTask("args", f"is not JSON: {error}") from None
    if not isinstance(value, list):
        raise InvalidTask("args", f"is no JSON array, e.g. '[1, \"two\"]': {text[:80]}")
    return value


def environment(settings: Sequence[str]) -> dict[str, str] | None:
    """The values of `--env`. Raises InvalidTask."""
    pairs = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise InvalidTask("env", f"{setting!r} is not of the form KEY=VALUE")
        pairs[name] = value
    return pairs or None


async def _wait(call: Invocation, fleet: Fleet, task_id: str) -> int:
    """Follow the task to its end; the exit code says how it ended."""
    out = call.out
    if not call.json:
        out.show(None, task_id)
    shown = ""
    async for status in fleet.follow(task_id):
        if status != shown:
            out.progress(f"{task_id} {status}")
            shown = status
    out.progress("")
    view = await fleet.task(task_id)
    tail = view["stdout_tail"].rstrip("\n")
    out.show(view, ended_line(view), *([tail] if tail else []))
    return 0 if view["status"] == "completed" else 1


def ended_line(view: dict[str, Any]) -> str:
    """How a task ended and, of one without success, why."""
    ended = f"{view['status']} ({view['outcome']})"
    if view["status"] == "completed" or not view["history"]:
        return ended
    reason = view["history"][-1]["detail"]
    return f"{ended}: {printable(reason)}" if reason not in ("", view["outcome"]) else ended
