"""Files of tasks into drafts: pure parsers, which neither validate a task nor submit it.

`parse_file` reads a file whole and answers with an `ImportPlan` or refuses with `InvalidImport`,
which names file and line. What a task must be is `TaskSpec`'s business, so a draft of a `.jsonl`
line carries the line's fields as they are.
"""

from __future__ import annotations

from pathlib import Path

from novawf.errors import InvalidImport
from novawf.tasks.importing.checklist import parse_checklist
from novawf.tasks.importing.command import render_command
from novawf.tasks.importing.jsonl import parse_jsonl
from novawf.tasks.importing.lines import parse_lines
from novawf.tasks.importing.plan import DONE, Draft, ImportPlan, Skipped

__all__ = ["DONE", "Draft", "ImportPlan", "Skipped", "parse_file", "render_command"]

SUFFIXES = (".jsonl", ".md", ".txt")


def parse_file(path: Path, skip_bad: bool = False) -> ImportPlan:
    """The drafts in `path`, in dependency order; the suffix says how it is read.

    `skip_bad` reports broken lines of `.jsonl` and `.txt` as skipped instead of refusing the file.
    A check-list is one whole and always refused as such. Raises InvalidImport.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidImport(
            f"{path}: suffix {suffix or '(none)'} is unknown; known are {', '.join(SUFFIXES)}"
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidImport(f"{path}: cannot be read: {error.strerror or error}") from None
    # Bytes that are no UTF-8 survive as surrogates, so that each parser can name their line.
    text = data.decode("utf-8-sig", errors="surrogateescape")
    if suffix == ".jsonl":
        return parse_jsonl(text, str(path), skip_bad)
    if suffix == ".txt":
        return parse_lines(text, str(path), skip_bad)
    return parse_checklist(text, str(path))
