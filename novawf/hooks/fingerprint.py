"""Whether files are as they were when a hook was checked: path, device, inode, size, mtime, ctime.

`touch -r` sets an mtime back, but no ctime.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKER = 1
"""Counts up when a rule changes: what an older checker said is not believed."""


def fingerprint(checker: int, argv: Sequence[str], files: Sequence[str]) -> str:
    """The key of one check: its rules, the command, and its files as they are now."""
    return json.dumps([checker, list(argv), [[path, *_status(path)] for path in files]])


def current(key: str, checker: int, argv: Sequence[str]) -> bool:
    """Whether a check under `key` still holds for this command."""
    try:
        files = [entry[0] for entry in json.loads(key)[2]]
    except (ValueError, LookupError, TypeError):
        return False
    return bool(files) and fingerprint(checker, argv, files) == key


def _status(path: str) -> list[int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - on the path of every hook's execution
    except OSError:
        return []
    return [
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]
