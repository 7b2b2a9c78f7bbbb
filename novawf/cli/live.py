"""What `up` shows while the fleet runs: a live table on a terminal, JSON lines anywhere else.

The supervisor drives both: it announces events and shows the status document a few times a
second. Telemetry fails open: nothing here raises, and nothing here waits for its reader. Writing
happens in a thread of its own, because a terminal on hold (Ctrl-S) or a pipe that nobody reads
would otherwise stop the supervision of the whole fleet.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from novawf.cli.output import printable
from novawf.clock import Clock, SystemClock, iso, parse_iso
from novawf.telemetry.masking import mask_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

LASTING_S: Final = 2.0
"""A state that lasts so long is worth a line; a busy Nova changes its state many times a second."""
FLUSH_S: Final = 1.0
"""How long the last words wait for a reader."""
_BACKLOG: Final = 10_000
"""Lines kept for a reader that is slow; what comes on top is dropped, and counted."""
_LAST_WORDS: Final = ("ending_now", "stopped", "ray_died")
_IDLE: Final = ("stream_check", "work_discovery")
_OF_CHILDREN: Final = ("starting", "backing off", "quarantined", "stopped")
"""States that the supervisor announces itself (`child_…`)."""


class Announcer(Protocol):
    """Where the supervisor says what happens. Never raises, never waits but for its last words."""

    show_s: float
    """How often it wants to be shown the fleet."""

    def announce(self, event: str, **fields: Any) -> None:
        """One event: a word with underscores and its details, fit for JSON."""

    def show(self, status: Mapping[str, Any]) -> None:
        """The fleet as it is now: the document of `status --json`."""


def make_announcer(stream: TextIO, is_tty: bool, clock: Clock | None = None) -> Announcer:
    """A live table where `stream` is a terminal that can draw one, else JSON lines."""
    clock = clock or SystemClock(0)
    stream = _own(stream)
    if is_tty and "utf" in (getattr(stream, "encoding", None) or "").lower():
        from rich.console import Console  # noqa: PLC0415 - 60 ms that only a terminal needs

        console = Console(file=stream)
        if console.is_terminal and not console.is_dumb_terminal:
            return LiveTable(console, clock)
    return JsonLines(stream, clock)


class JsonLines:
    """One JSON object per line and change: `{"ts", "event", …}`, flushed at once."""

    show_s = LASTING_S

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._changes = Changes()
        self._writer = _Writer()

    def announce(self, event: str, **fields: Any) -> None:
        """Print the event."""
        document = {"ts": iso(self._clock.wall_s()), "event": event, **fields}
        if missed := self._writer.take_dropped():
            document["lines_dropped"] = missed
        line = json.dumps(mask_json(document), default=str, skipkeys=True) + "\n"
        self._writer.put(lambda: self._print(line))
        if event in _LAST_WORDS:
            self._writer.flush(FLUSH_S)

    def show(self, status: Mapping[str, Any]) -> None:
        """Print what changed since the last time, if it lasts."""
        for event, fields in self._changes.since(status, self._clock.wall_s()):
            self.announce(event, **fields)

    def _print(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


class LiveTable:
    """A table that stays at the bottom of the terminal; events scroll by above it."""

    show_s = 0.5

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._extra: dict[str, Any] = {}
        self._live: Live | None = None
        self._over = False
        self._writer = _Writer()

    def announce(self, event: str, **fields: Any) -> None:
        """Print the event if a person wants to know; the table says the rest."""
        if event == "fleet_started":
            self._extra |= {name: fields.get(name) for name in ("metrics", "dashboard")}
        elif event == "draining":
            self._extra["phase"] = "draining"
        elif event == "waiting_for":
            self._extra["waiting"] = (len(fields["children"]), fields["left_s"])
        text = sentence(event, fields)
        if text is not None:
            at = datetime.fromtimestamp(self._clock.wall_s(), UTC).astimezone()
            self._writer.put(lambda: self._print(f"{at:%H:%M:%S}", text))
        if event in ("stopping", *_LAST_WORDS):
            self._over = True
            self._writer.put(self._end)  # gives the cursor back before the process may end
        if event in _LAST_WORDS:
            self._writer.flush(FLUSH_S)

    def show(self, status: Mapping[str, Any]) -> None:
        """Draw the table again, unless the terminal has not taken the last one yet."""
        if self._over or not self._writer.idle:
            return
        now_iso, extra = iso(self._clock.wall_s()), dict(self._extra)
        self._writer.put(lambda: self._draw(status, now_iso, extra))

    # -- in the writer's thread ------------------------------------------------------------------

    def _print(self, at: str, text: str) -> None:
        from rich.text import Text  # noqa: PLC0415 - see `make_announcer`

        self._console.print(Text.assemble((at, "dim"), " ", text), soft_wrap=True)

    def _draw(self, status: Mapping[str, Any], now_iso: str, extra: Mapping[str, Any]) -> None:
        from rich.live import Live  # noqa: PLC0415

        from novawf.cli.fleet_table import render  # noqa: PLC0415

        picture = render(status, now_iso, extra)
        if self._live is None:
            self._live = Live(picture, console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(picture, refresh=True)

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class Changes:
    """Tells the lasting changes between one status document and the next."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[str, str | None]] = {}
        self._held: str | None = None
        self._blocked: int | None = None

    def since(
        self, status: Mapping[str, Any], now_s: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(event, fields) of what is new in `status`."""
        for row in status["novas"]:
            yield from self._of_nova(row, now_s)
        yield from self._of_gate(status["fleet"])
        blocked = status["tasks"]["blocked"]
        if self._blocked is not None and blocked > self._blocked:
            yield "task_blocked", {"new": blocked - self._blocked, "blocked": blocked}
        self._blocked = blocked

    def _of_nova(
        self, row: Mapping[str, Any], now_s: float
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        state, task = row["state"], row["task"]
        if state in _OF_CHILDREN:
            self._states.pop(row["id"], None)
            return
        if not row["since"] or now_s - parse_iso(row["since"]) < LASTING_S:
            return
        # An idle Nova goes to and fro between two states; that is no news.
        known = ("idle", None) if state in _IDLE and task is None else (state, task)
        if self._states.get(row["id"]) == known:
            return
        self._states[row["id"]] = known
        fields = {"nova": row["id"], "state": state, "since": row["since"]}
        yield "nova_state", fields | ({"task": task, "title": row["title"]} if task else {})

    def _of_gate(self, fleet: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        kind = "stop" if fleet["stop"] else "pause" if fleet["paused"] else "verdict"
        held = kind if fleet["held"] else None
        if fleet["state"] == "running" and held != self._held:
            self._held = held
            yield ("held", {"reason": fleet["held"]}) if held else ("released", {})


def sentence(event: str, fields: Mapping[str, Any]) -> str | None:
    """The event for people; None for what they see in the table."""
    if event in _SILENT:
        return None
    known = _SENTENCES.get(event)
    if known is not None:
        shown = {name: printable(_text(value)) for name, value in fields.items()}
        try:
            return "\n         ".join(known).format_map(shown)
        except (KeyError, IndexError, ValueError):
            pass  # other details than expected: show those there are
    details = ", ".join(f"{name} {printable(_text(value))}" for name, value in fields.items())
    words = event.replace("_", " ")
    return f"{words}: {details}" if details else words


_SILENT: Final = frozenset(
    {"child_starting", "child_running", "child_stopped", "store_taken", "waiting_for"}
)
_SENTENCES: Final[Mapping[str, tuple[str, ...]]] = {
    "starting": ("Starting a fleet in {home}; Ray takes some seconds.",),
    "fleet_started": (
        "The fleet works: {novas}",
        "Store      {store}. {loss_window}",
        "Metrics    {metrics}",
        "Dashboard  {dashboard} (it asks for the token in {dashboard_token})",
    ),
    "fleet_adopted": ("Adopted, as they run: {children}",),
    "node_serves": ("Node {node} serves ({machine})",),
    "node_lost": ("Node {node} is lost, or its keepers are",),
    "clock_apart": ("The clock of node {node} is {milliseconds} ms behind: see to its NTP",),
    "child_died": ("{child} (pid {pid}) died: {cause}",),
    "child_backing_off": ("{child} waits before it starts again: {cause}",),
    "child_quarantined": ("{child} is quarantined: {cause}",),
    "spare_taken": ("A standby Nova (pid {pid}) becomes {child}",),
    "task_released": ("{task} is {status} again: {nova} lost it",),
    "task_quarantined": ("{task} is quarantined: it ended several Novas, the last {nova}",),
    "lease_expired": ("{task} is free again: the lease of {nova} ran out",),
    "waiting_for_lease": (
        "{nova}'s task waits for its lease to run out: its processes may still run",
    ),
    "mended": ("{what} had died and is back",),
    "ray_died": ("Ray's {what} died; another session is started",),
    "store_rolled_back": ("WARNING: {detail}",),
    "idle": ("Nothing is left to do: {completed} completed, {blocked} blocked",),
    "draining": ("Draining: work in hand may finish; Ctrl-C again ends at once",),
    "ending_now": ("Ending at once",),
    "stopping": ("Stopping {what}",),
    "stopped": ("Stopped",),
}


def _text(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _own(stream: TextIO) -> TextIO:
    """The same file under a buffer of its own, where there is a file.

    A write that hangs holds its buffer's lock: on the buffer of `sys.stdout` it would hang the
    flush at the end of the process too.
    """
    try:
        return os.fdopen(
            os.dup(stream.fileno()), "w", encoding=stream.encoding, errors="backslashreplace"
        )
    except (OSError, ValueError, AttributeError):
        return stream


class _Writer:
    """Runs writes one after the other in a thread; drops them when too many wait."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(_BACKLOG)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    @property
    def idle(self) -> bool:
        """Whether everything has been written."""
        return self._queue.unfinished_tasks == 0

    def put(self, write: Callable[[], None]) -> None:
        """Have `write` run soon. Its errors are nobody's concern: the reader went away."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(write)
        except queue.Full:
            self._dropped += 1

    def take_dropped(self) -> int:
        """How many writes were dropped since the last call, once there is room again."""
        if self._queue.full():
            return 0
        dropped, self._dropped = self._dropped, 0
        return dropped

    def flush(self, timeout_s: float) -> None:
        """Wait until everything is written, but not for ever."""
        written = threading.Event()
        self.put(written.set)
        written.wait(timeout_s)

    def _run(self) -> None:
        while True:
            write = self._queue.get()
            try:
                write()
            except Exception:  # noqa: S110 - telemetry fails open, and there is nowhere to say so
                pass
            finally:
                self._queue.task_done()
