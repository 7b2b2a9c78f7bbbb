"""The chain of the audit trail: written by many, broken by whom it may, and found so."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_until

from novawf.audit import files, log
from novawf.audit.chain import last_lines, lines_of, verify
from novawf.audit.log import AuditLog, BackgroundAudit, Bounds, share_settings
from novawf.audit.record import digest_of
from novawf.errors import NoAnswer, Refused

SMALL = Bounds(max_bytes=2_000)

WRITER = """
import sys
from pathlib import Path
from novawf.audit.log import AuditLog, Bounds
audit = AuditLog(Path(sys.argv[1]), Bounds(max_bytes=int(sys.argv[3])))
print("up", flush=True)
for number in range(int(sys.argv[2])):
    audit.record(who=f"writer {sys.argv[4]}", action="x.y", target=str(number), why="w" * 300)
"""


def writer(home: Path, records: int, max_bytes: int, name: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", WRITER, str(home), str(records), str(max_bytes), name]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def fill(home: Path, records: int = 5, bounds: Bounds | None = None) -> Path:
    audit = AuditLog(home, bounds or Bounds())
    for number in range(records):
        audit.record(who="me", action="a.b", target=f"T{number}", before=number, after=[1])
    return home / "audit"


def records(directory: Path) -> list[dict[str, Any]]:
    return [line.record for line in lines_of(directory) if line.record is not None]


def newest(directory: Path) -> Path:
    return files.files_of(directory)[-1][1]


def rewritten(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


# -- writing --------------------------------------------------------------------------------------


def test_a_record_says_who_what_before_after_and_why(tmp_path: Path) -> None:
    """And where it stands in the chain."""
    AuditLog(tmp_path).record(
        who="me",
        action="fleet.stop_all",
        target="fleet",
        before={"a": 1},
        after=(1, 2),
        why="drill",
    )
    (found,) = records(tmp_path / "audit")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]{12}Z", found.pop("ts"))
    assert re.fullmatch(r"[0-9a-f]{64}", found.pop("hash"))
    assert found == {
        "sequence": 1, "who": "me", "pid": os.getpid(), "action": "fleet.stop_all",
        "target": "fleet", "before": {"a": 1}, "after": [1, 2], "why": "drill", "prev": "0" * 64,
    }  # fmt: skip


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    """Directory 0700, files 0600, whatever the umask; so is a home that was not there."""
    before = os.umask(0)
    try:
        directory = fill(tmp_path / "home", 30, SMALL)
        share_settings(tmp_path / "home", {})
    finally:
        os.umask(before)
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_records_hold_no_secrets_and_are_bounded(tmp_path: Path) -> None:
    """Whatever is given: secrets, megabytes, bytes that are no text, things that are no JSON."""
    audit = AuditLog(tmp_path)
    audit.record(who="me", action="x", target=["--token", "a8f5"], before={"password": "hunter2"})
    audit.record(who="me", action="x", why="w" * 1_000_000, after={"x": "y" * 1_000_000})
    audit.record(who="me", action="x", target="\udcff", before={"\udcff": Path("/x"), 1: "\udcff"})
    text = newest(tmp_path / "audit").read_text()
    assert "a8f5" not in text
    assert "hunter2" not in text
    assert len(text) < 20_000
    assert verify(tmp_path / "audit").ok
    assert verify(tmp_path / "audit").records == 3


def test_files_follow_each_other_by_size_and_their_chain_goes_on(tmp_path: Path) -> None:
    """The first record of a file links to the last of the one before."""
    directory = fill(tmp_path, 40, SMALL)
    paths = [path for _, path in files.files_of(directory)]
    assert len(paths) > 5
    assert all(path.stat().st_size <= 2_000 for path in paths)
    found = verify(directory)
    assert found.ok
    assert (found.records, found.files, found.last.sequence) == (40, len(paths), 40)


def test_the_oldest_files_go_when_only_some_are_kept(tmp_path: Path) -> None:
    """The trail itself tells which, so that their absence is no gap."""
    directory = fill(tmp_path, 60, Bounds(max_bytes=2_000, keep_files=2))
    assert len(files.files_of(directory)) == 2
    assert verify(directory).ok
    assert any(record["action"] == "audit.pruned" for record in records(directory))
    files.files_of(directory)[0][1].unlink()
    assert verify(directory).faults[0].kind == "missing"


def test_many_processes_write_one_chain(tmp_path: Path) -> None:
    """Each record is there once, and the chain holds over files and writers."""
    writers = [writer(tmp_path, 60, 20_000, str(n)) for n in range(4)]
    assert [process.wait(60) for process in writers] == [0] * 4
    found = verify(tmp_path / "audit")
    assert found.faults == []
    assert found.records == 240
    told = {(record["who"], record["target"]) for record in records(tmp_path / "audit")}
    assert len(told) == 240


def test_writers_that_are_killed_leave_a_chain_that_holds(tmp_path: Path) -> None:
    """SIGKILL wherever it hits: the next writer goes on, and what it says is found to be true."""
    directory = tmp_path / "audit"
    for round_ in range(6):
        killed = writer(tmp_path, 1_000_000, 50_000, f"killed {round_}")
        assert killed.stdout is not None
        killed.stdout.readline()
        wanted = _count(directory) + 5
        wait_until(lambda n=wanted: _count(directory) > n, 60, what="records of the writer")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        AuditLog(tmp_path).record(who="me", action="after.kill", target=str(round_))
        assert verify(directory).faults == []
    assert sum(record["action"] == "after.kill" for record in records(directory)) == 6


def _count(directory: Path) -> int:
    head = files.read_head(directory)
    return 0 if head is None else head.sequence


@pytest.mark.parametrize("cut", [1, 20, -2, -1])
def test_a_torn_line_is_named_by_the_next_record(tmp_path: Path, cut: int) -> None:
    """A writer killed in the middle of its write, wherever: what it wrote stays, and is set aside.

    A line that lacks only its end is whole.
    """
    directory = fill(tmp_path)
    path, head = newest(directory), files.read_head(directory)
    fill(tmp_path, 1)
    whole = path.read_bytes().splitlines(keepends=True)[-1]
    path.write_bytes(path.read_bytes()[: -len(whole)] + whole[:cut])
    assert head is not None
    files.write_head(directory, head)  # it was killed before it came to this
    lost = len(whole[:cut]) < len(whole) - 1
    assert [fault.kind for fault in verify(directory).faults] == ["torn"] * lost
    AuditLog(tmp_path).record(who="me", action="goes.on")
    found = verify(directory)
    assert found.faults == []
    assert len(found.torn) == lost
    if lost:
        assert found.torn[0] == {"file": path.name, "line": 6, "bytes": len(whole[:cut])}
        assert [r["action"] for r in records(directory)][-2:] == ["audit.torn", "goes.on"]


def test_a_torn_first_line_of_a_new_file_is_set_aside(tmp_path: Path) -> None:
    """The chain goes on from the file before."""
    directory = fill(tmp_path, 12, SMALL)
    number, _ = files.files_of(directory)[-1]
    (directory / files.file_name(number + 1)).write_bytes(b'{"sequence": 13, "who')
    AuditLog(tmp_path).record(who="me", action="goes.on")
    assert verify(directory).faults == []
    assert len(verify(directory).torn) == 1


def test_a_head_one_behind_is_no_fault_and_is_caught_up(tmp_path: Path) -> None:
    """Killed between a record and `head`."""
    directory = fill(tmp_path)
    head = files.read_head(directory)
    fill(tmp_path, 1)
    assert head is not None
    files.write_head(directory, head)
    assert verify(directory).ok
    fill(tmp_path, 1)
    assert verify(directory).ok
    assert _count(directory) == 7


def test_a_full_disk_costs_a_warning_and_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The action goes on; one warning for one kind of fault; recording goes on when it can."""
    directory = fill(tmp_path)
    real, audit = os.write, AuditLog(tmp_path)
    monkeypatch.setattr(log.os, "write", lambda file, data: real(file, data[:10]))
    with caplog.at_level(logging.WARNING):
        audit.record(who="me", action="a.b")
        audit.record(who="me", action="a.b")
    monkeypatch.undo()
    assert [record.getMessage().split(": ")[-1] for record in caplog.records] == [
        "No space left on device"
    ]
    audit.record(who="me", action="a.b")
    assert verify(directory).ok
    assert verify(directory).records == 6


def test_what_cannot_be_written_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file where the directory should be, and a lock that somebody else holds."""
    (tmp_path / "audit").write_text("")
    AuditLog(tmp_path).record(who="me", action="a.b")
    assert "a.b was not recorded" in caplog.text


def test_a_lock_that_another_holds_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A writer that was stopped in the middle must not stop everybody."""
    directory = fill(tmp_path)
    monkeypatch.setattr(log, "PATIENCE_S", 0.05)
    with files.locked(directory, fcntl.LOCK_EX, 0) as ours:
        assert ours
        AuditLog(tmp_path).record(who="me", action="a.b")
    assert "another process has held its lock" in caplog.text


def test_a_disabled_log_writes_nothing(tmp_path: Path) -> None:
    """Neither one for tests nor one that was switched off in the settings."""
    AuditLog.disabled().record(who="me", action="a.b")
    AuditLog(tmp_path, Bounds(enabled=False)).record(who="me", action="a.b")
    assert list(tmp_path.iterdir()) == []


def test_commands_follow_the_settings_of_the_fleet(tmp_path: Path) -> None:
    """A command reads no settings file; what the fleet has said counts, and junk does not."""
    share_settings(tmp_path, {"enabled": False, "max_bytes": "many", "keep_files": 3})
    assert Bounds.of(files.read_settings(tmp_path / "audit")) == Bounds(enabled=False, keep_files=3)
    AuditLog(tmp_path).record(who="me", action="a.b")
    assert files.files_of(tmp_path / "audit") == []


def test_a_change_that_was_refused_is_not_recorded_and_one_in_doubt_is(tmp_path: Path) -> None:
    """No reply: it may have taken place."""
    audit = AuditLog(tmp_path)
    with audit.change(who="me", action="done") as change:
        change.before, change.after = 1, 2
    with pytest.raises(Refused), audit.change(who="me", action="refused"):
        raise Refused("no")
    with pytest.raises(NoAnswer), audit.change(who="me", action="doubtful"):
        raise NoAnswer("nobody")
    with pytest.raises(KeyboardInterrupt), audit.change(who="me", action="interrupted"):
        raise KeyboardInterrupt
    assert [(r["action"], r["before"], r["after"]) for r in records(tmp_path / "audit")] == [
        ("done", 1, 2),
        ("doubtful", None, {"unknown": "nobody"}),
        ("interrupted", None, {"unknown": "interrupted"}),
    ]


def test_the_background_writes_in_order_and_does_not_wait(tmp_path: Path) -> None:
    """The supervisor's loop is not held up by a lock that somebody holds."""
    audit = BackgroundAudit(AuditLog(tmp_path))
    audit.record(who="supervisor", action="a.0")
    audit.flush()
    with files.locked(tmp_path / "audit", fcntl.LOCK_EX, 0):
        done = threading.Event()

        def told() -> None:
            for number in range(1, 50):
                audit.record(who="supervisor", action=f"a.{number}")
            done.set()

        threading.Thread(target=told).start()
        assert done.wait(5)
    audit.flush(20)
    assert [r["action"] for r in records(tmp_path / "audit")] == [f"a.{n}" for n in range(50)]
    assert verify(tmp_path / "audit").ok


# -- verifying ------------------------------------------------------------------------------------


def test_no_trail_is_well(tmp_path: Path) -> None:
    """Nothing was changed yet."""
    assert verify(tmp_path / "audit").ok


def test_a_changed_record_is_named(tmp_path: Path) -> None:
    """File and line, whatever stands in it."""
    directory = fill(tmp_path)
    path = newest(directory)
    rewritten(path, lambda lines: [line.replace(b'"T2"', b'"T9"') for line in lines])
    found = verify(directory)
    assert found.faults[0].document() | {"what": ""} == {
        "file": path.name, "line": 3, "kind": "hash", "what": "",
    }  # fmt: skip
    AuditLog(tmp_path).record(who="me", action="goes.on")
    assert verify(directory).faults[0] == found.faults[0]  # the next writer hides nothing


def test_a_changed_record_with_a_new_hash_breaks_the_link_of_the_next(tmp_path: Path) -> None:
    """Whoever knows how hashes are made must rewrite all that follows, and `head`."""
    directory = fill(tmp_path)
    path = newest(directory)

    def change(lines: list[bytes]) -> list[bytes]:
        document = json.loads(lines[2])
        document["target"] = "T9"
        document["hash"] = digest_of(document)
        return [*lines[:2], json.dumps(document).encode() + b"\n", *lines[3:]]

    rewritten(path, change)
    assert [(f.line, f.kind) for f in verify(directory).faults] == [(4, "link")]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda lines: lines[:2] + lines[3:], (3, "sequence")),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], (3, "sequence")),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], (3, "sequence")),
        (lambda lines: [*lines[:2], b"junk\n", *lines[2:]], (3, "hash")),
        (lambda lines: lines[1:], (1, "missing")),
    ],
    ids=["removed", "swapped", "repeated", "inserted", "beheaded"],
)
def test_records_that_were_removed_moved_or_inserted_are_found(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], place: tuple[int, str]
) -> None:
    """The first place is named."""
    directory = fill(tmp_path)
    rewritten(newest(directory), change)
    first = verify(directory).faults[0]
    assert (first.line, first.kind) == place


def test_records_removed_at_the_end_are_found_and_the_next_writer_hides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`head` knows how far it went."""
    directory = fill(tmp_path)
    rewritten(newest(directory), lambda lines: lines[:3])
    assert [(f.file, f.kind) for f in verify(directory).faults] == [("head", "missing")]
    AuditLog(tmp_path).record(who="me", action="goes.on")
    assert "is broken: records 4 to 5 are missing" in caplog.text
    assert [(f.line, f.kind) for f in verify(directory).faults] == [(4, "sequence")]
    assert [r["action"] for r in records(directory)][-2:] == ["audit.broken", "goes.on"]


def test_a_last_record_that_was_cut_is_no_torn_line(tmp_path: Path) -> None:
    """`head` was written after it: it had been whole."""
    directory = fill(tmp_path)
    path = newest(directory)
    path.write_bytes(path.read_bytes()[:-30])
    assert [(f.line, f.kind) for f in verify(directory).faults] == [(5, "hash")]
    AuditLog(tmp_path).record(who="me", action="goes.on")
    assert not verify(directory).ok


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """One in the middle."""
    directory = fill(tmp_path, 40, SMALL)
    gone = files.files_of(directory)[2][1]
    gone.unlink()
    first = verify(directory).faults[0]
    assert (first.file, first.kind) == (gone.name, "missing")


@pytest.mark.parametrize("text", [None, "", "{}", '{"sequence": 2, "hash": "x"}'])
def test_a_head_that_was_lost_or_changed_is_a_fault(tmp_path: Path, text: str | None) -> None:
    """Without it nobody could tell that the end was cut off."""
    directory = fill(tmp_path)
    if text is None:
        (directory / "head").unlink()
    else:
        (directory / "head").write_text(text)
    assert [(f.file, f.kind) for f in verify(directory).faults] == [("head", "head")]


def test_lines_behind_the_record_that_sets_them_aside_cannot_be_swapped(tmp_path: Path) -> None:
    """A torn line is named by its hash."""
    directory = fill(tmp_path)
    path = newest(directory)
    with path.open("ab") as file:
        file.write(b'{"sequence": 6, "who": "m')
    AuditLog(tmp_path).record(who="me", action="goes.on")
    assert verify(directory).ok
    rewritten(path, lambda lines: [line.replace(b'"who": "m\n', b'"who": "x\n') for line in lines])
    assert [(f.line, f.kind) for f in verify(directory).faults] == [(6, "hash")]


def test_the_last_lines_are_found_over_files_and_what_comes_after_them(tmp_path: Path) -> None:
    """Whoever follows reads on from a place, and nothing twice."""
    directory = fill(tmp_path, 40, SMALL)
    last = last_lines(directory, 12)
    assert [line.record and line.record["sequence"] for line in last] == list(range(29, 41))
    assert len({line.file for line in last}) > 1
    assert len(last_lines(directory, 1000)) == 40
    assert list(lines_of(directory, last[-1].end)) == []
    AuditLog(tmp_path, SMALL).record(who="me", action="a.b")
    AuditLog(tmp_path, Bounds(max_bytes=10)).record(who="me", action="a.b")
    new = [line.record for line in lines_of(directory, last[-1].end)]
    assert [record and record["sequence"] for record in new] == [41, 42]
