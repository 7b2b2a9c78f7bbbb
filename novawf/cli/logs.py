"""`novawf logs`: the output of a task, whole or as it grows.

The log is a file on the machine that ran the task (`processes/output.py`); from another machine
only the tail that was stored with the result can be shown.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from novawf.cli.command import Invocation, command
from novawf.errors import Refused
from novawf.processes.output import read_since
from novawf.telemetry.masking import MaskedStream, mask

if TYPE_CHECKING:
    from pathlib import Path

    from novawf.client import Fleet

LOOK_S = 0.1
"""Pause between two looks at a log that is followed: what a person feels as at once."""
STATUS_EVERY = 5
"""Looks without new output per question to the store whether the task has ended."""

_ENDED = ("completed", "blocked")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(
        app,
        "logs",
        "novawf logs TORCH-1760000000-00002a",
        "novawf logs -f TORCH-1760000000-00002a",
        "novawf logs TORCH-1760000000-00002a --attempt 1",
    )(logs)


async def logs(
    call: Invocation,
    task_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")],
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on until the task has ended.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Which attempt. Default: the last.")
    ] = None,
) -> None:
    """Print the output of a task; with -f, as it comes and until the task has ended."""
    async with call.fleet() as fleet:
        view = await fleet.task(task_id)
        if not follow:
            _check_started(view, attempt)
        head_bytes = await _head_bytes(fleet)
        reader = _Reader(fleet, task_id, attempt or view["attempts"], head_bytes, call.json)
        if follow:
            await reader.follow(stays=attempt is not None)
        else:
            reader.drain()
        text = reader.collected()
        if not reader.offset and not reader.path.exists():
            view = await fleet.task(task_id)
            text = _stored_tail(view, reader.attempt)
            if "archived_at" in view:
                call.out.note("its log was removed when it left the store; this end was kept")
            if not call.json:
                sys.stdout.write(mask(text))
        call.out.show(
            {
                "task_id": task_id,
                "attempt": reader.attempt,
                "path": str(reader.path),
                "output": text,
            }
        )


class _Reader:
    """Reads one attempt's log onwards, to stdout or (`keep`) into memory; then the next one's."""

    def __init__(
        self, fleet: Fleet, task_id: str, attempt: int, head_bytes: int, keep: bool
    ) -> None:
        self.fleet = fleet
        self.task_id = task_id
        self.attempt = attempt
        self.offset = 0
        self._head_bytes = head_bytes
        self._keep = keep
        self._kept: list[bytes] = []
        self._masked = MaskedStream()

    @property
    def path(self) -> Path:
        """The log that is read."""
        return self.fleet.log_path(self.task_id, self.attempt)

    def collected(self) -> str:
        """What was read, as text; kept only for `--json`."""
        return b"".join(self._kept).decode("utf-8", "replace")

    def drain(self, *, whole: bool = True) -> bool:
        """Take all there is now; whether there was anything. Unless that is the `whole`, the line
        that has not ended is left: half of a secret cannot be told from other text."""
        write: Callable[[bytes], Any] = sys.stdout.buffer.write
        if self._keep:
            write = self._kept.append
        before = self.offset
        while True:
            data, offset = read_since(str(self.path), self.offset, self._head_bytes)
            if offset == self.offset:
                break
            self.offset = offset
            write(self._masked.feed(data))
        if whole:
            write(self._masked.end())
        sys.stdout.buffer.flush()
        return self.offset != before

    async def follow(self, *, stays: bool) -> None:
        """Until the task has ended, or (`stays`) the attempt has."""
        quiet = 0
        while True:
            quiet = 0 if self.drain(whole=False) else quiet + 1
            if quiet % STATUS_EVERY == 1:
                view = await self.fleet.task(self.task_id)
                if view["attempts"] > self.attempt:
                    self.drain()
                    if stays:
                        return
                    if self.attempt and not self._keep:
                        sys.stderr.write(f"-- attempt {view['attempts']} --\n")
                    self.attempt, self.offset = view["attempts"], 0
                    continue
                if view["status"] in _ENDED:
                    self.drain()  # what came between the last look and the end
                    return
            await asyncio.sleep(LOOK_S)


async def _head_bytes(fleet: Fleet) -> int:
    """Where the beginning of a log ends: as the running fleet has said, else the default."""
    said = (await fleet.said()).get("executors", {}).get("head_bytes")
    if said is not None:
        return int(said)
    from novawf.executors.config import ExecutorSettings  # noqa: PLC0415 - pydantic

    return ExecutorSettings().head_bytes


def _check_started(view: dict[str, Any], attempt: int | None) -> None:
    task_id, made = view["task_id"], view["attempts"]
    if made == 0:
        raise Refused(
            f"task {task_id} has no output: it has not started yet ({view['status']}); "
            "`novawf logs -f` waits for it"
        )
    if attempt is not None and attempt > made:
        raise Refused(f"task {task_id} has no attempt {attempt}: it has made {made}")


def _stored_tail(view: dict[str, Any], attempt: int) -> str:
    """The end of the output as the result has it, if it is of that attempt."""
    return str(view["stdout_tail"]) if attempt == view["attempts"] else ""
