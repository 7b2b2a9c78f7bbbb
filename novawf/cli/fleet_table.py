"""The live picture of a fleet on a terminal: a pure function of the status document.

It fits itself to the terminal: no line wraps, titles are cut first, and when there are more Novas
than lines, those that need a person come first and the rest are counted. rich is imported on use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from novawf.cli.output import printable
from novawf.clock import parse_iso

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.segment import Segment
    from rich.table import Table
    from rich.text import Text

    Parts = Sequence[tuple[str, str]]

WIDE: Final = 110
"""From this many columns on, task ids are shown beside titles."""
NARROW: Final = 64
"""With fewer columns, restarts are left out."""
_HELD_LINES: Final = 3
_FEWEST: Final = 3
"""A terminal too low for so many Novas and the foot's help shows no help."""
_STATE_STYLES: Final = {
    "task_execution": "green",
    "safety_pause": "yellow",
    "error_recovery": "red",
    "starting": "cyan",
    "initializing": "cyan",
    "backing off": "yellow",
    "quarantined": "bold red",
    "stopped": "dim",
}
_IDLE: Final = ("stream_check", "work_discovery")
_TROUBLE: Final = ("quarantined", "backing off", "error_recovery")


def render(
    status: Mapping[str, Any], now_iso: str, extra: Mapping[str, Any] | None = None
) -> RenderableType:
    """The whole picture at `now_iso`.

    `status` is the document of `status --json`; `extra` what it does not hold, all optional:
    `metrics` and `dashboard` (URLs), `phase` (`draining`, to show instead of the state) and
    `waiting` (how many Novas a drain waits for, and seconds until their work is handed back).
    """
    return _FleetPicture(status, parse_iso(now_iso), extra or {})


def _phase(extra: Mapping[str, Any]) -> str | None:
    phase: str | None = extra.get("phase")
    if phase is None or "waiting" not in extra:
        return phase
    novas, left_s = extra["waiting"]
    limit = f"at most {left_s:.0f} s more" if left_s > 0 else "handing back"
    return f"{phase}: {novas} Nova{'' if novas == 1 else 's'} at work, {limit}"


class _FleetPicture:
    """Knows its size only when it is drawn."""

    def __init__(self, status: Mapping[str, Any], now_s: float, extra: Mapping[str, Any]) -> None:
        self._status = status
        self._now_s = now_s
        self._extra = extra

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment  # noqa: PLC0415 - rich costs 60 ms: only on a terminal

        # One column stays free: some terminals wrap a line that fills the last one.
        options = options.update(width=options.max_width - 1)
        drawn = [_drawn(console, options, line) for line in self._head()]
        head = [line for lines in drawn for line in lines[:_HELD_LINES]]
        foot = [*self._summary(), *self._help()]
        novas = sorted(self._status["novas"], key=_trouble_first)
        # Besides head and foot: the table's header, a blank line, the cursor's line.
        space = options.size.height - len(head) - len(foot) - 3
        if space < min(_FEWEST, len(novas)):
            foot = self._summary()
            space = options.size.height - len(head) - len(foot) - 3
        shown = novas if len(novas) <= space else novas[: max(1, space - 1)]
        shown = sorted(shown, key=_name)
        body = _drawn(console, options, self._table(shown, options.max_width))
        if hidden := len(novas) - len(shown):
            body += _drawn(console, options, _line([(f"  … and {hidden} more", "dim")]))
        below = [_drawn(console, options, line)[0] for line in (_line([("", "")]), *foot)]
        for line in (*head, *body, *below)[: max(1, options.size.height - 1)]:
            yield from line
            yield Segment.line()

    def _head(self) -> list[Text]:
        fleet = self._status["fleet"]
        store = fleet["store"]
        state = _phase(self._extra) or fleet["state"]
        parts = [
            ("NOVAWF ", "bold"),
            (printable(state), "green" if state == "running" else "yellow"),
        ]
        if fleet["started_at"]:
            parts.append((f" · up {_elapsed(self._now_s, fleet['started_at'])}", ""))
        parts.append((f" · {printable(store['backend'])}, {printable(store['persistence'])}", ""))
        lines = [_line(parts)]
        if fleet["held"] and fleet["state"] != "starting":  # then no verdict yet is no news
            # The supervisor's own words, but with a reason in them that somebody typed.
            style = "bold red" if fleet["stop"] else "yellow"
            held = _line(
                [("NOTHING STARTS  ", f"reverse {style}"), (f" {printable(fleet['held'])}", style)]
            )
            held.no_wrap = False  # the one thing worth more than a line
            lines.append(held)
        return lines

    def _table(self, novas: Sequence[Mapping[str, Any]], width: int) -> Table:
        from rich.table import Table  # noqa: PLC0415 - see `__rich_console__`

        wide, narrow = width >= WIDE, width < NARROW
        # Fixed widths, so that nothing jumps about from one picture to the next.
        table = Table(
            box=None, expand=True, pad_edge=False, collapse_padding=True, header_style="dim"
        )
        names = max((len(row["id"]) for row in novas), default=0)
        table.add_column("", width=1)
        table.add_column("NOVA", width=min(16, max(6, names)), no_wrap=True)
        table.add_column("STATE", width=18, no_wrap=True)
        if wide:
            table.add_column("TASK", width=26, no_wrap=True, overflow="ellipsis")
        table.add_column("WORK" if wide else "TASK", ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column("FOR", width=7, no_wrap=True, justify="right")
        if not narrow:
            table.add_column("RESTARTS", width=9, justify="right")
        for row in novas:
            cells = self._cells(row, wide)
            table.add_row(*cells[:-1] if narrow else cells)
        return table

    def _cells(self, row: Mapping[str, Any], wide: bool) -> list[Text]:
        mark, mark_style, state, style = _condition(row)
        work = row["title"] or row["task"]
        if row["state"] in _TROUBLE and row["cause"]:
            text = (printable(row["cause"]), "yellow")
        else:
            held = self._status["fleet"]["held"] or row.get("paused")
            idle = row["state"] in _IDLE and row["listening"] and not held
            text = (printable(work), "") if work else ("waiting for work" if idle else "", "dim")
        cells = [
            _line([(mark, mark_style)]),
            _line([(printable(row["id"]), "bold")]),
            _line([(state, style)]),
            _line([text]),
            _line([(_elapsed(self._now_s, row["since"]) if row["since"] else "", "")]),
            _line([(str(row["restarts"] or ""), "yellow")]),
        ]
        if wide:
            cells.insert(3, _line([(printable(row["task"]) if row["task"] else "", "dim")]))
        return cells

    def _summary(self) -> list[Text]:
        tasks, limits = self._status["tasks"], self._status["limits"]
        blocked = tasks["blocked"]
        counts = [
            ("Tasks  ", "dim"),
            (f"{tasks['pending']:,} pending · {tasks['in_progress']:,} in progress · ", ""),
            (f"{tasks['completed']:,} completed · ", ""),
            (f"{blocked:,} blocked", "bold red" if blocked else ""),
        ]
        depth = self._status.get("queue_depth")
        if depth is not None:
            counts.append((f" · {depth:,} may start", ""))
        left = [
            ("API    ", "dim"),
            *_left(limits["minute_left"], limits["requests_per_minute"], "this minute"),
            (" · ", ""),
            *_left(limits["hour_left"], limits["requests_per_hour"], "this hour"),
            (f" · {limits['in_use']} of {limits['concurrent']} in flight", ""),
        ]
        actors = [actor for actor in self._status["actors"] if not actor["alive"]]
        lines = [_line(counts), _line(left)]
        if actors:
            said = ", ".join(f"{actor['name']} {_said(actor)}" for actor in actors)
            lines.append(_line([("Away   ", "dim"), (printable(said), "yellow")]))
        return lines

    def _help(self) -> list[Text]:
        lines = []
        for name in ("dashboard", "metrics"):
            if self._extra.get(name):
                shown = printable(self._extra[name])
                lines.append(_line([(f"{name.capitalize()}  ".ljust(11), "dim"), (shown, "")]))
        if self._extra.get("phase") == "draining":
            said = "Work in hand may finish now; Ctrl-C again ends at once"
        else:
            said = "Ctrl-C drains, twice ends at once · elsewhere: novawf submit, tasks, status"
        lines.append(_line([(said, "dim")]))
        return lines


def _condition(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Mark, its style, words and their style for one Nova."""
    state = row["state"]
    words, style = printable(state).replace("_", " "), _STATE_STYLES.get(state, "")
    if not row["alive"]:
        return "○", "red" if state in _TROUBLE else style, words, style
    if not row["listening"]:
        return ("◌", "cyan", words, style) if state == "starting" else ("!", "red", "silent", "red")
    if not row["progressing"]:
        return "!", "yellow", "no progress", "yellow"
    if row.get("paused"):
        return "●", "yellow", "paused", "yellow"
    if state in _IDLE and not row["task"]:
        return "●", "green", words, "dim"
    return "●", "green", words, style


def _trouble_first(row: Mapping[str, Any]) -> tuple[bool, bool, str]:
    well = row["alive"] and row["listening"] and row["progressing"]
    return well, row["task"] is None, row["id"]


def _name(row: Mapping[str, Any]) -> str:
    return str(row["id"])


def _left(left: int, limit: int, window: str) -> Parts:
    style = "red" if left == 0 else "yellow" if left * 5 < limit else ""
    return [(f"{left} of {limit} left", style), (f" {window}", "")]


def _said(actor: Mapping[str, Any]) -> str:
    state = actor.get("state", "gone")
    return f"{state} ({actor['cause']})" if actor.get("cause") else str(state)


def _elapsed(now_s: float, since_iso: str) -> str:
    """`0:07`, `59:59`, `2h 03m`, `4d 02h`: four to seven characters, and never below zero."""
    seconds = max(0, int(now_s - parse_iso(since_iso)))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02d}h"
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}:{seconds:02d}"


def _line(parts: Parts) -> Text:
    """One line that is cut, never wrapped."""
    from rich.text import Text  # noqa: PLC0415 - see `__rich_console__`

    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis", end="")


def _drawn(console: Console, options: ConsoleOptions, part: RenderableType) -> list[list[Segment]]:
    return console.render_lines(part, options, pad=False)
