"""`.txt`: one task a line, its title; `#` begins a comment line, blank lines are skipped."""

from __future__ import annotations

from novawf.errors import InvalidImport
from novawf.tasks.importing.plan import (
    Draft,
    ImportPlan,
    Skipped,
    is_text,
    make_plan,
    numbered_lines,
)


def parse_lines(text: str, source: str, skip_bad: bool = False) -> ImportPlan:
    """One draft a line. A line that is no text refuses the file, or is skipped by `skip_bad`."""
    drafts: list[Draft] = []
    skipped: list[Skipped] = []
    for number, line in numbered_lines(text):
        title = line.strip()
        if not title or title.startswith("#"):
            continue
        if is_text(title) and "\0" not in title:
            drafts.append(Draft(key=f"line-{number}", title=title, line=number))
        elif skip_bad:
            skipped.append(Skipped(number, ascii(title)[:200], "is not UTF-8 text"))
        else:
            raise InvalidImport(f"{source}:{number}: is not UTF-8 text")
    return make_plan(drafts, skipped, source)
