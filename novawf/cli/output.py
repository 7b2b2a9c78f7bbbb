"""How answers are shown: one JSON document, or text in columns. It decides nothing.

What comes from tasks (titles, details) is untrusted on a terminal: control characters are shown,
not sent. No answer shows a secret but the one that is asked for it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from novawf.errors import NovawfError
from novawf.telemetry.masking import mask, mask_json


class Output(NamedTuple):
    """Where a command's answer goes, and in which form."""

    json: bool

    def show(self, document: Any, *lines: str, as_it_is: bool = False) -> None:
        """The answer: `document` with `--json`, else the lines; masked, unless `as_it_is`."""
        try:
            if self.json:
                shown = document if as_it_is else mask_json(document)
                json.dump(shown, sys.stdout, indent=2, ensure_ascii=False, default=str)
                sys.stdout.write("\n")
            else:
                for line in lines:
                    sys.stdout.write(f"{line if as_it_is else mask(line)}\n")
            sys.stdout.flush()  # a command that goes on to wait must not keep its answer
        except BrokenPipeError:
            raise
        except OSError as error:
            raise NovawfError(f"the answer cannot be written: {error.strerror}") from None

    def note(self, text: str) -> None:
        """A remark for people, beside the answer."""
        if not self.json:
            sys.stderr.write(f"{mask(text)}\n")

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches."""
        return not self.json and sys.stderr.isatty()

    def progress(self, text: str) -> None:
        """Overwrite the line on the terminal that says how far it is; '' takes it away."""
        if self.shows_progress:
            sys.stderr.write(f"\r{mask(text)}\x1b[K")
            sys.stderr.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, last_free: bool = True) -> str:
    """Columns of text under headers. The last column is cut to the terminal's width, if it is one;
    everywhere else lines stay whole."""
    cells = [list(headers), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    if last_free:
        widths[-1] = 0
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(_cut(line.rstrip(), limit))
    return "\n".join(lines)


def pairs(rows: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one a line."""
    shown = [(name, printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in shown)


def printable(value: Any) -> str:
    """One line that is safe to print, and shows no secret; None shows as a dash."""
    if value is None or value == "":
        return "-"
    text = mask(str(value))
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def counted(number: int, noun: str) -> str:
    """`1 task`, `1,200 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time span for people: `4.2 s`, `3 min`, `5.0 h`, `2.1 d`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def _cut(line: str, limit: int | None) -> str:
    return line if limit is None or len(line) <= limit else line[: max(limit - 1, 0)] + "…"
