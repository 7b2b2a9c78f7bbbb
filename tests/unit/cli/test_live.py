"""What `up` shows: the picture fits its terminal, the lines tell each change once, nobody waits."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from typing import Any

import pytest
from rich.console import Console
from waiting import wait_until

from novawf.cli.fleet_table import render
from novawf.cli.live import LASTING_S, Announcer, Changes, JsonLines, LiveTable, make_announcer
from novawf.clock import ManualClock, iso, parse_iso

NOW = "2026-11-02T10:13:05.123Z"
EXTRA = {"metrics": "http://127.0.0.1:9464/metrics", "dashboard": "http://127.0.0.1:8265"}


def nova(name: str, state: str = "work_discovery", **changes: Any) -> dict[str, Any]:
    """A row of `status`, well and idle unless changed."""
    return {
        "id": name, "state": state, "phase": "work_phase_1", "pid": 7, "alive": True,
        "listening": True, "progressing": True, "task": None, "title": None, "restarts": 0,
        "cause": "", "cycles": 3, "since": "2026-11-02T10:12:00.000Z", "paused": False,
    } | changes  # fmt: skip


def down(name: str, state: str, cause: str, **changes: Any) -> dict[str, Any]:
    """A row of a Nova whose process is gone."""
    gone = {"alive": False, "listening": False, "progressing": False, "cause": cause}
    return nova(name, state, **gone | changes)


def status(*novas: dict[str, Any], **fleet: Any) -> dict[str, Any]:
    """The status document of a running fleet."""
    store = {"backend": "valkey", "persistence": "append-only log, fsync every second"}
    return {
        "fleet": {
            "state": "running", "started_at": "2026-11-02T08:00:00.000Z", "run_id": "r", "pid": 1,
            "store": {**store, "loss_window_s": 1.0}, "stop": None, "paused": False, "held": None,
        } | fleet,
        "novas": list(novas),
        "actors": [{"name": "limiter", "alive": True, "state": "running", "cause": ""}],
        "tasks": {"pending": 1234, "in_progress": 2, "completed": 300, "blocked": 1},
        "limits": {
            "requests_per_minute": 30, "requests_per_hour": 500, "minute_left": 3,
            "hour_left": 480, "in_use": 1, "concurrent": 5,
        },
    }  # fmt: skip


LONG = "Hash every wheel of numpy, scipy and pandas and compare with the sums that were recorded"
BUSY = (
    nova(
        "torch", "task_execution", task="TORCH-1793610000-00002a", title=LONG,
        since="2026-11-02T10:12:58.000Z",
    ),
    nova("echo", "task_execution", task="FLEET-1793610000-00012a", title="Count", restarts=2),
    nova("helix"),
    down("vaeris", "backing off", "process died; again in 3.4 s", restarts=3),
    down("synergy", "quarantined", "synergy ended again (crash) after 5 restarts", restarts=5),
)  # fmt: skip


def drawn(
    document: dict[str, Any], width: int = 80, height: int = 24, extra: Any = EXTRA
) -> list[str]:
    """The picture as lines of text."""
    console = Console(
        width=width, height=height, record=True, file=io.StringIO(), force_terminal=True
    )
    console.print(render(document, NOW, extra))
    return console.export_text().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 24), (200, 60), (40, 10)])
@pytest.mark.parametrize("many", [0, 40])
def test_the_picture_never_wraps_and_never_outgrows_the_terminal(
    width: int, height: int, many: int
) -> None:
    rows = (*BUSY, *(nova(f"nova-{number:02d}") for number in range(many)))
    lines = drawn(status(*rows, held="x " * 400, stop={"reason": "x"}), width, height)
    assert max(map(len, lines)) < width
    assert len(lines) < height


def test_at_80_columns_a_row_says_state_title_time_and_restarts() -> None:
    lines = drawn(status(*BUSY))
    torch = next(line for line in lines if "torch" in line)
    assert torch.startswith("● torch   task execution     Hash every wheel of numpy")
    assert "…" in torch
    assert torch.split()[-1] == "0:07"
    echo = next(line for line in lines if "echo" in line)
    assert echo.split()[-2:] == ["1:05", "2"]


def test_at_120_columns_the_id_of_the_task_is_whole() -> None:
    assert any("TORCH-1793610000-00002a" in line for line in drawn(status(*BUSY), 120))
    assert not any("TORCH-1793610000-00002a" in line for line in drawn(status(*BUSY), 80))


def test_a_nova_that_does_not_work_says_why_in_place_of_its_task() -> None:
    text = "\n".join(drawn(status(*BUSY), 120))
    assert "process died; again in 3.4 s" in text
    assert "synergy ended again (crash) after 5 restarts" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"listening": False, "progressing": False}, "silent"),
        ({"progressing": False}, "no progress"),
        ({"paused": True}, "paused"),
        ({}, "waiting for work"),
    ],
)
def test_the_three_levels_of_liveness_and_a_pause_are_words_not_only_colours(
    changes: dict[str, Any], words: str
) -> None:
    assert words in "\n".join(drawn(status(nova("torch", **changes))))


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        ((2, 31.4), "draining: 2 Novas at work, at most 31 s more"),
        ((1, 0.0), "draining: 1 Nova at work, handing back"),
    ],
)
def test_a_drain_says_how_many_it_waits_for_and_how_long(
    waiting: tuple[int, float], words: str
) -> None:
    assert words in drawn(status(*BUSY), extra={"phase": "draining", "waiting": waiting})[0]


def test_a_halt_and_its_reason_are_shown_whole() -> None:
    reason = "The fleet is stopped since 2026-11-02T10:00:00.000Z by alice: the API bill explodes."
    text = " ".join(" ".join(drawn(status(nova("torch"), held=reason, stop={"by": "a"}))).split())
    assert f"NOTHING STARTS {reason}" in text
    assert "waiting for work" not in text


def test_those_that_need_a_person_are_shown_when_not_all_fit() -> None:
    rows = [nova(f"a-{number:02d}") for number in range(50)]
    lines = drawn(status(*rows, down("zeta", "quarantined", "why")))
    assert any("zeta" in line for line in lines)
    assert any(line.strip().startswith("… and ") for line in lines)


def test_limits_counts_addresses_and_keys_are_at_the_foot() -> None:
    text = "\n".join(drawn(status(*BUSY)))
    assert "3 of 30 left this minute · 480 of 500 left this hour · 1 of 5 in flight" in text
    assert "1,234 pending · 2 in progress · 300 completed · 1 blocked" in text
    assert EXTRA["metrics"] in text
    assert EXTRA["dashboard"] in text
    assert "Ctrl-C drains" in text


def test_an_actor_that_is_away_is_named_with_its_cause() -> None:
    document = status(nova("torch"))
    document["actors"][0] |= {"alive": False, "state": "backing off", "cause": "process died"}
    assert "limiter backing off (process died)" in "\n".join(drawn(document))


def test_titles_cannot_send_control_characters_or_markup_to_the_terminal() -> None:
    row = nova("torch", "task_execution", task="T", title="a\x1b[2J\u202eb\n[red]c")
    console = Console(width=120, height=24, file=io.StringIO(), force_terminal=True)
    console.print(render(status(row), NOW))
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[2J" not in output
    assert "\u202e" not in output
    assert "b [red]c" in output


@pytest.mark.parametrize("state", ["starting", "unknown"])
def test_a_fleet_that_is_only_starting_can_be_shown(state: str) -> None:
    row = nova("torch", "starting", alive=False, listening=False, since="", progressing=False)
    lines = drawn(status(row, state=state, started_at=None), extra=None)
    assert lines[0].startswith(f"NOVAWF {state}")


def test_the_verdict_that_a_starting_fleet_does_not_have_yet_alarms_nobody() -> None:
    text = "\n".join(drawn(status(state="starting", held="No safety verdict yet.")))
    assert "NOTHING STARTS" not in text


# -- JSON lines --------------------------------------------------------------------------------


class Lines(io.StringIO):
    """Collects JSON lines."""

    def documents(self, events: int) -> list[dict[str, Any]]:
        """The first `events` documents, once they are there."""
        wait_until(lambda: self.getvalue().count("\n") >= events, what=f"{events} lines")
        return [json.loads(line) for line in self.getvalue().splitlines()]


def test_an_event_is_one_json_object_with_time_and_details() -> None:
    lines, clock = Lines(), ManualClock()
    announcer = make_announcer(lines, is_tty=False, clock=clock)
    announcer.announce("child_restarted", child="torch", cause="line\nbreak", at=object)
    (document,) = lines.documents(1)
    assert document["ts"] == iso(clock.wall_s())
    assert document["event"] == "child_restarted"
    assert document["cause"] == "line\nbreak"
    assert "object" in document["at"]


def test_showing_the_same_status_again_says_nothing_new() -> None:
    changes, at_s = Changes(), parse_iso(NOW)
    assert [event for event, _ in changes.since(status(*BUSY), at_s)] == ["nova_state"] * 3
    assert list(changes.since(status(*BUSY), at_s + 60)) == []


def test_a_state_is_told_when_it_has_lasted_and_with_its_task() -> None:
    changes, since_s = Changes(), parse_iso(NOW)
    row = nova("torch", "task_execution", task="T-1-000001", title="Count", since=NOW)
    assert list(changes.since(status(row), since_s + LASTING_S - 0.1)) == []
    told = list(changes.since(status(row), since_s + LASTING_S))
    assert told == [
        (
            "nova_state",
            {
                "nova": "torch", "state": "task_execution", "since": NOW, "task": "T-1-000001",
                "title": "Count",
            },
        )
    ]  # fmt: skip


def test_an_idle_nova_that_looks_for_work_again_and_again_is_told_once() -> None:
    changes, at_s = Changes(), parse_iso(NOW)
    told = [
        event
        for state in ("work_discovery", "stream_check", "work_discovery")
        for event in changes.since(status(nova("torch", state)), at_s)
    ]
    assert len(told) == 1


def test_a_nova_that_came_back_is_told_again() -> None:
    changes, at_s = Changes(), parse_iso(NOW)
    rows = (nova("torch"), down("torch", "backing off", "died"), nova("torch"))
    told = [event for row in rows for event in changes.since(status(row), at_s)]
    assert len(told) == 2


def test_blocked_tasks_and_a_halt_are_told_when_they_come_and_when_it_goes() -> None:
    changes, at_s = Changes(), parse_iso(NOW)
    assert list(changes.since(status(), at_s)) == []
    worse = status(held="paused by hand", paused=True)
    worse["tasks"]["blocked"] = 3
    assert list(changes.since(worse, at_s)) == [
        ("held", {"reason": "paused by hand"}),
        ("task_blocked", {"new": 2, "blocked": 3}),
    ]
    better = status()
    better["tasks"]["blocked"] = 3
    assert list(changes.since(better, at_s)) == [("released", {})]


def test_a_reader_that_went_away_is_nobodys_concern() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        announcer = make_announcer(stream, is_tty=False)
        os.close(reading)
        for _ in range(3):
            announcer.announce("mended", what="store")
        announcer.announce("stopped", exit_code=0)


def test_a_reader_that_reads_nothing_holds_nobody_up_and_learns_how_much_it_missed() -> None:
    reached, go_on = threading.Event(), threading.Event()

    class Stuck(Lines):
        def write(self, text: str) -> int:
            reached.set()
            go_on.wait(30)
            return super().write(text)

    lines = Stuck()
    announcer = JsonLines(lines, ManualClock())
    announcer.announce("first")
    assert reached.wait(5)
    for number in range(10_050):
        announcer.announce("more", number=number)
    go_on.set()
    lines.documents(10_001)
    announcer.announce("last")
    assert lines.documents(10_002)[-1]["lines_dropped"] == 50


def test_the_end_of_the_process_does_not_wait_for_a_reader_that_reads_nothing() -> None:
    program = (
        "import sys\n"
        "from novawf.cli.live import make_announcer\n"
        "announcer = make_announcer(sys.stdout, is_tty=False)\n"
        "for number in range(2000): announcer.announce('more', text='x' * 100)\n"
        "announcer.announce('stopped')\n"
        "sys.stdout.flush()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


# -- the terminal ------------------------------------------------------------------------------


class Terminal:
    """A real terminal of 80x24 with everything that was written to it."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._seen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All output so far."""
        return self._seen.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Return when `text` has been written."""
        wait_until(lambda: text in self.text, what=repr(text))

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            self._seen += data


def show_until(announcer: Announcer, terminal: Terminal, text: str) -> None:
    """Show the fleet, as the supervisor does again and again, until `text` has been drawn."""

    def there() -> bool:
        announcer.show(status(*BUSY))
        return text in terminal.text

    wait_until(there, what=repr(text))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that can draw."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def test_on_a_terminal_the_table_stays_and_events_scroll_by(terminal: Terminal) -> None:
    announcer: Announcer = make_announcer(terminal.stream, is_tty=True)
    assert isinstance(announcer, LiveTable)
    details = {"store": "valkey", "loss_window": "None.", "dashboard_token": "/t"}
    announcer.announce("fleet_started", novas=["torch"], **EXTRA, **details)
    terminal.wait_for("The fleet works: torch")
    show_until(announcer, terminal, "Ctrl-C drains")
    announcer.announce("child_died", child="torch", pid=7, cause="process died")
    terminal.wait_for("torch (pid 7) died: process died")
    announcer.announce("child_running", child="torch", restarts=1)
    announcer.announce("something_new", count=3)
    terminal.wait_for("something new: count 3")
    assert "child running" not in terminal.text
    announcer.announce("stopped", exit_code=0)


@pytest.mark.parametrize("last", ["ending_now", "stopped"])
def test_the_cursor_is_back_when_the_last_words_have_been_said(
    terminal: Terminal, last: str
) -> None:
    announcer = make_announcer(terminal.stream, is_tty=True)
    show_until(announcer, terminal, "\x1b[?25l")
    announcer.announce(last)
    terminal.wait_for("\x1b[?25h")
    announcer.show(status(*BUSY))
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_draining_is_shown_in_place_of_the_state(terminal: Terminal) -> None:
    announcer = make_announcer(terminal.stream, is_tty=True)
    announcer.announce("draining", signal="SIGINT")
    terminal.wait_for("Draining: work in hand may finish")
    show_until(announcer, terminal, "Work in hand may finish now")
    announcer.announce("stopped")


def test_a_terminal_that_cannot_draw_gets_json_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_announcer(terminal.stream, is_tty=True), JsonLines)
    monkeypatch.setenv("TERM", "xterm")
    ascii_only = os.fdopen(os.dup(terminal.stream.fileno()), "w", encoding="ascii")
    with ascii_only:
        assert isinstance(make_announcer(ascii_only, is_tty=True), JsonLines)
