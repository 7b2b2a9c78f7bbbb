"""Retention: finished tasks leave the store for compressed files, where they are still found.

A task that ended longer than `[tasks] retention_h` ago is written to the archive as it was
(`archive_file.py`), and only when that is on disk removed from the store, by a script that looks
again. A crash in between leaves a line that is written once more later; readers take the newest.
What stays: tasks that have not ended or await approval, and those that others in the store come
after. With a task go its request id and its dedupe key, which may then be used anew.

The same sweep removes logs of attempts that ended before the retention and whose task has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from novawf.clock import Clock, iso, monotonic_s
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.store.scripts import load_script
from novawf.tasks import archive_file
from novawf.tasks.archive_file import Line
from novawf.tasks.config import TaskSettings
from novawf.tasks.state import unpack
from novawf.tasks.tracker import TaskTracker

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("novawf.tasks")

_T = TypeVar("_T")

_FORGET = load_script("novawf.tasks", "forget", "lib")

STEM: Final = "tasks"
PAGE: Final = 200
"""Tasks looked at, archived and removed at once: about a millisecond of the store's time."""
PAGE_BYTES: Final = 4_000_000
"""As many as fit into this, when they are large; a single task may be larger."""
_DAY_S: Final = 86_400
_LOG: Final = re.compile(r"([A-Z][A-Z0-9_-]*-\d+-[0-9a-f]{6})\.\d+\.log(\.part\.\d+)?")
"""Of one attempt; parts are left by a writer that was killed (`processes/output.py`)."""


class Swept(NamedTuple):
    """What a sweep did. `done`: nothing more is to be archived now."""

    tasks: int
    bytes: int
    """Bytes written to the archive."""
    logs: int
    """Log files removed."""
    done: bool


class _Ended(NamedTuple):
    """A task that may leave."""

    task_id: str
    packed: str
    dependents: bool


class _Row(NamedTuple):
    """All that the store has of it."""

    task: _Ended
    spec: str
    result: str | None
    waiting: str | None


class ArchiveReader:
    """Archived tasks, from the files alone. Blocking: a few milliseconds, more when files are cold.

    Every method raises Refused when the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def find(self, task_id: str) -> dict[str, Any] | None:
        """A task as `TaskTracker.task` gives it, with `spec` and `archived_at`; None: not here.

        Costs one look through the index of each day since the task was made: 16 bytes a task.
        """
        parts = task_id.rsplit("-", 2)
        created_s = int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0
        since = iso(min(max(0, created_s - _DAY_S), 4e9))[:10]  # wall clocks differ, and are set
        return archive_file.find(self.directory, STEM, task_id, since)

    def tasks(self) -> Iterator[dict[str, Any]]:
        """All of them, in the order in which they were archived; one kept twice comes twice."""
        for kept in self.files():
            yield from archive_file.read_all(kept.path)

    def files(self) -> list[archive_file.Kept]:
        """The files there are, the oldest first."""
        return archive_file.files(self.directory, STEM)


class Archive(ArchiveReader):
    """Moves finished tasks from the store to files. One sweeps at a time, whoever they are."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: TaskSettings,
        directory: Path,
        logs: Path | None = None,
    ) -> None:
        super().__init__(directory)
        self.redis: Any = redis  # replies are str (decode_responses); redis-py's types say bytes
        self.clock = clock
        self.settings = settings
        self.logs = logs
        self._tracker = TaskTracker(redis, clock)
        self._rank = -1
        """Next place in the order of creation to look at, downwards; -1 begins at the top."""

    async def sweep(self, limit_s: float = 1.0) -> Swept:
        """Archive what is due, for about `limit_s`; the next call goes on where this one stopped.

        Does nothing while another sweeps this directory. Raises Refused when it cannot be used;
        redis' own errors pass. A repeat does no harm.
        """
        until_s = monotonic_s() + limit_s
        tasks = size = 0
        with archive_file.writing(self.directory, STEM) as mine:
            if not mine:
                return Swept(0, 0, 0, False)
            cutoff_ms = self.clock.now_ms() - int(self.settings.retention_h * 3_600_000)
            if self._rank < 0:
                due = await self.redis.zcount(keys.TASK_ORDER, "-inf", cutoff_ms)
                self._rank = due - 1
            while self._rank >= 0:
                low = max(0, self._rank - PAGE + 1)
                for batch in await self._due(low, self._rank, cutoff_ms):
                    rows = await self._read(batch)
                    took, written = await in_thread(partial(self._write, rows))
                    size, tasks = size + took, tasks + await self._forget(written)
                self._rank = low - 1
                if self._rank >= 0 and monotonic_s() >= until_s:
                    return Swept(tasks, size, 0, False)
            return Swept(tasks, size, await self._remove_logs(), True)

    async def _due(self, low: int, high: int, cutoff_ms: int) -> list[list[_Ended]]:
        """Those between two places in the order that may leave, the latest first, in batches.

        Later ones come after earlier ones, so in this order a chain of tasks leaves from its end.
        """
        task_ids = await self.redis.zrange(keys.TASK_ORDER, low, high)
        if not task_ids:
            return []
        states = await self.redis.hmget(keys.TASK_STATE, task_ids)
        ended: list[_Ended] = []
        for task_id, packed in reversed(list(zip(task_ids, states, strict=True))):
            try:
                state = unpack(task_id, packed or "")
            except CorruptState as error:
                log.error("%s; it is left as it is", error)
                continue
            final = state.status == "completed" or (
                state.status == "blocked" and state.outcome != "awaiting_approval"
            )
            if final and state.updated_ms <= cutoff_ms:
                ended.append(_Ended(task_id, packed, state.dependents))
        return await self._batches(await self._without_followers(ended))

    async def _without_followers(self, ended: list[_Ended]) -> list[_Ended]:
        """Leave out what a task that stays comes after: it would be written for nothing."""
        followed = [task.task_id for task in ended if task.dependents]
        if not followed:
            return ended
        lists = await self.redis.hmget(keys.DEPENDENTS, followed)
        after = {one: (text or "").split(",") for one, text in zip(followed, lists, strict=True)}
        names = [name for names in after.values() for name in names]
        states = await self.redis.hmget(keys.TASK_STATE, names)
        here = {name for name, state in zip(names, states, strict=True) if state is not None}
        going: dict[str, _Ended] = {}
        for task in ended:
            if all(name in going or name not in here for name in after.get(task.task_id, ())):
                going[task.task_id] = task
        return list(going.values())

    async def _batches(self, ended: list[_Ended]) -> list[list[_Ended]]:
        """Split so that no batch is much larger than `PAGE_BYTES`: a task may have a megabyte."""
        if not ended:
            return []
        async with self.redis.pipeline(transaction=False) as pipe:
            for task in ended:
                pipe.hstrlen(keys.TASK_SPEC, task.task_id)
                pipe.hstrlen(keys.TASK_RESULT, task.task_id)
            sizes = await pipe.execute()
        batches: list[list[_Ended]] = [[]]
        filled = 0
        for task, spec, result in zip(ended, sizes[::2], sizes[1::2], strict=True):
            filled += spec + result
            if filled > PAGE_BYTES and batches[-1]:
                batches.append([])
                filled = spec + result
            batches[-1].append(task)
        return batches

    async def _read(self, batch: Sequence[_Ended]) -> list[_Row]:
        task_ids = [task.task_id for task in batch]
        async with self.redis.pipeline(transaction=False) as pipe:
            for hash_ in (keys.TASK_SPEC, keys.TASK_RESULT, keys.WAITING):
                pipe.hmget(hash_, task_ids)
            specs, results, waiting = await pipe.execute()
        return [
            _Row(task, spec or "", result, count)
            for task, spec, result, count in zip(batch, specs, results, waiting, strict=True)
        ]

    def _write(self, rows: Sequence[_Row]) -> tuple[int, list[_Row]]:
        """Write a batch to the archive, and see it on disk: bytes it took, and what was written."""
        now = iso(self.clock.wall_s())
        lines, written = [], []
        for row in rows:
            try:
                lines.append(Line(row.task.task_id, self._line(row, now)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                # It must not keep the others here for ever.
                log.error("task %s cannot be archived: %r", row.task.task_id, error)
            else:
                written.append(row)
        lines.reverse()  # rows come the latest first
        return archive_file.append(self.directory, STEM, now[:10], lines), written

    def _line(self, row: _Row, now: str) -> str:
        view = self._tracker.view(row.task.task_id, row.task.packed, *row[1:])
        document = view | {"spec": json.loads(row.spec), "archived_at": now}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

    async def _forget(self, rows: Sequence[_Row]) -> int:
        if not rows:
            return 0
        args: list[str] = []
        for row in rows:
            spec = json.loads(row.spec)
            requests = (spec.get("request", ""), spec.get("dedupe") or "")
            args += (row.task.task_id, row.task.packed.split("\n", 1)[0], *requests)
        removed: list[int] = await _FORGET(
            self.redis,
            (
                keys.TASK_STATE, keys.TASK_SPEC, keys.TASK_RESULT, keys.TASK_ORDER,
                keys.TASK_REQUESTS, keys.TASK_COUNTS, keys.DEPENDENTS, keys.WAITING, keys.CASCADE,
                keys.DEADLINES,
            ),
            args,
        )  # fmt: skip
        return sum(removed)

    async def _remove_logs(self) -> int:
        """Remove the logs of tasks that have left; those of another store are left until as old."""
        if self.logs is None:
            return 0
        age_s = self.settings.retention_h * 3600
        candidates = await in_thread(partial(_old_logs, self.logs, self.clock.wall_s() - age_s))
        removed = 0
        for start in range(0, len(candidates), PAGE):
            some = candidates[start : start + PAGE]
            states = await self.redis.hmget(keys.TASK_STATE, [task_id for task_id, _ in some])
            gone = [path for (_, path), state in zip(some, states, strict=True) if state is None]
            removed += await in_thread(partial(_unlink, gone))
        return removed


def _old_logs(directory: Path, before_s: float) -> list[tuple[str, Path]]:
    """(task id, path) of the logs last written before this wall time."""
    found = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            name = _LOG.fullmatch(entry.name)
            if name and entry.stat(follow_symlinks=False).st_mtime < before_s:
                found.append((name[1], Path(entry.path)))
    return found


def _unlink(paths: Sequence[Path]) -> int:
    """Remove files; how many went. A log that stays costs disk, so it only is said."""
    removed = 0
    for path in paths:
        try:
            path.unlink(missing_ok=True)
            removed += 1
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)
    return removed


async def in_thread(work: Callable[[], _T]) -> _T:
    """Run it in a thread and wait for its end, also when cancelled: we hold the lock for it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
