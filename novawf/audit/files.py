"""The files of an audit trail: which there are, how they end, and the `head` beside them.

`HOME/audit/` holds `audit-000001.jsonl` and so on, `head` (sequence and hash of the last record),
`lock` (held, by flock, for as long as one append takes) and `settings.json` (how the fleet has set
`[audit]`, for commands, which read no settings).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from novawf.audit.record import BEGINNING, Link, link_of
from novawf.clock import monotonic_s

LOCK: Final = "lock"
HEAD: Final = "head"
SETTINGS: Final = "settings.json"
SECRET_ENV: Final = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "OPENAI_API_KEY",
    "CODEX_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
"""Variables whose values are secret everywhere: the default of `[audit] secret_env`."""
_NAME: Final = re.compile(r"audit-(\d{6,12})\.jsonl")
_WINDOW: Final = 16_384
"""Bytes of a file's end that are read at first: nearly every record is shorter."""
_PAUSE_S: Final = 0.002


class Ending(NamedTuple):
    """How a file ends."""

    link: Link | None
    """Of the last whole record; None where the file has none."""
    junk: bytes
    """What stands after it."""
    closed: bool
    """Whether that record's line has its end."""


def directory_of(home: Path) -> Path:
    """Where the trail of a home is."""
    return home / "audit"


def files_of(directory: Path) -> list[tuple[int, Path]]:
    """The files by number. Raises OSError for a directory that cannot be read."""
    found = [
        (int(match[1]), directory / name)
        for name in os.listdir(directory)  # noqa: PTH208 - names are what is matched
        if (match := _NAME.fullmatch(name)) is not None
    ]
    return sorted(found)


def file_name(number: int) -> str:
    """The name of a file."""
    return f"audit-{number:06d}.jsonl"


def ending_of(descriptor: int, size: int) -> Ending:
    """The last whole record of a file of `size` bytes, found from its end: a few reads at most,
    unless what stands after it is long."""
    window = _WINDOW
    while True:
        start = max(0, size - window)
        data = os.pread(descriptor, size - start, start)
        ending = _last_whole(data, at_start=start == 0)
        if ending is not None:
            return ending
        window *= 8


def _last_whole(data: bytes, *, at_start: bool) -> Ending | None:
    """The last line of `data` that is a record, and what follows; None: look further back."""
    end = len(data)
    while end > 0:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        if begin == 0 and not at_start:
            return None
        if (link := link_of(data[begin:end])) is not None:
            return Ending(link, data[end:], data[end - 1 : end] == b"\n")
        end = begin
    return Ending(None, data, True) if at_start else None


def read_head(directory: Path) -> Link | None:
    """What `head` says; None where there is none that can be read."""
    try:
        said = json.loads((directory / HEAD).read_text())
        return Link(int(said["sequence"]), str(said["hash"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_head(directory: Path, link: Link) -> None:
    """Replace `head`, whole or not at all. Under the lock. Raises OSError."""
    write_private(directory / HEAD, _head_text(link))


def _head_text(link: Link) -> str:
    return json.dumps({"sequence": link.sequence, "hash": link.hash}) + "\n"


def write_private(path: Path, text: str) -> None:
    """A file for its owner alone, whole or not at all. Raises OSError."""
    draft = path.with_name(f"{path.name}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w") as out:
        out.write(text)
    draft.replace(path)


def read_settings(directory: Path) -> dict[str, Any]:
    """How the last fleet of this home has set `[audit]`; empty where none has run."""
    try:
        said = json.loads((directory / SETTINGS).read_text())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


@contextlib.contextmanager
def locked(directory: Path, how: int, patience_s: float) -> Iterator[bool]:
    """Hold the lock (`fcntl.LOCK_EX` or `LOCK_SH`) for the block; False when it could not be had
    within `patience_s`. Raises OSError."""
    file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline_s = monotonic_s() + patience_s
        while not _try(file, how):
            if monotonic_s() >= deadline_s:
                yield False
                return
            time.sleep(_PAUSE_S)
        yield True
    finally:
        os.close(file)  # lets go of it


def _try(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_link(files: list[tuple[int, Path]]) -> Link:
    """The last link of these files, the newest first that has a record. Raises OSError."""
    for _, path in reversed(files):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            ending = ending_of(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        if ending.link is not None:
            return ending.link
    return BEGINNING
