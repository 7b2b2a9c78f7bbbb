"""Stream entries on their way out: written to the archive before the trimming removes them.

`streams-2026-03-01.jsonl.gz`, in the directory and the format of the task archive
(`tasks/archive_file.py`), one entry a line: `stream`, `id`, `fields`. An entry is on disk before it
may be trimmed; a crash in between leaves it twice, with one id. Files have mode 0600, as insights
are personal to their Nova.

It does not decide what may go: that is the trimmer's business, which asks how far it may.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from novawf.clock import Clock, iso, monotonic_s
from novawf.streams.entry import next_id
from novawf.tasks import archive_file
from novawf.tasks.archive import in_thread
from novawf.tasks.archive_file import Line

if TYPE_CHECKING:
    from redis.asyncio import Redis

STEM: Final = "streams"
CHUNK: Final = 500
"""Entries read at once."""


class StreamArchive:
    """Keeps entries of streams in files. One writes at a time, whoever they are."""

    def __init__(self, redis: Redis, clock: Clock, directory: Path) -> None:
        self.redis: Any = redis
        self.clock = clock
        self.directory = directory

    async def keep(
        self, stream: str, before_id: str | None, most: int | None = None, limit_s: float = 0.5
    ) -> str | None:
        """Write the oldest entries to the archive: those before an id, at most so many.

        Returns the first id that must stay in the stream; None when nothing was written: there was
        nothing, or another process writes. Stops after about `limit_s`. Raises Refused when the
        directory cannot be used; redis' own errors pass.
        """
        until_s = monotonic_s() + limit_s
        end = "+" if before_id is None else f"({before_id}"
        start, kept_to = "-", None
        with archive_file.writing(self.directory, STEM) as mine:
            while mine and (most is None or most > 0) and monotonic_s() < until_s:
                count = CHUNK if most is None else min(CHUNK, most)
                entries = await self.redis.execute_command(
                    "XRANGE", stream, start, end, "COUNT", count, NEVER_DECODE=True
                )
                if not entries:
                    break
                await in_thread(partial(self._write, stream, entries))
                kept_to = next_id(entries[-1][0].decode())
                start = kept_to
                most = None if most is None else most - len(entries)
                await asyncio.sleep(0)
        return kept_to

    def _write(self, stream: str, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> None:
        lines = []
        for entry_id, fields in entries:
            shown = {_text(name): _text(value) for name, value in fields.items()}
            document = {"stream": stream, "id": entry_id.decode(), "fields": shown}
            text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
            lines.append(Line("", text))
        archive_file.append(self.directory, STEM, iso(self.clock.wall_s())[:10], lines)


def _text(data: bytes) -> str:
    """Anyone may have written it: bytes that are no text are escaped."""
    return data.decode(errors="backslashreplace")
