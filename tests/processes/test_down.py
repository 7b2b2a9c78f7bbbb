"""`novawf down`: what it tells the supervisor, and what it tells whoever waits."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from novawf.audit.chain import lines_of
from novawf.audit.log import user_name
from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app

SUPERVISOR = """
import json, os, signal, sys, time
from pathlib import Path
from novawf.processes.drain_order import take_order
from novawf.processes.home import HomeLock, write_fleet_file
home, draining, ends = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "ends"
heard = {"signals": 0}
def count(*_):
    heard["signals"] += 1
signal.signal(signal.SIGTERM, count)
lock = HomeLock(home)
lock.acquire()
write_fleet_file(home, {"pid": os.getpid(), "drain_s": 4, "shutdown_s": 5, "draining": draining})
print("up", flush=True)
while True:
    time.sleep(0.01)
    if (limit_s := take_order(home)) is not None:
        heard["limit_s"] = limit_s
    if ends and (heard["signals"] or "limit_s" in heard):
        time.sleep(0.3)
        (home / "heard").write_text(json.dumps(heard))
        sys.exit(0)
"""
DRAINING = {"limit_s": 600, "waiting_for": ["torch", "helix"]}


@contextlib.contextmanager
def supervisor(
    home: Path, draining: dict[str, object] | None = None, ends: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """One that notes what it hears; it `ends` once it has heard something."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(home), json.dumps(draining), "ends" * ends],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        process.kill()
        process.wait()


def down(home: Path, *flags: str) -> int:
    return run_app(make_app(), PROG, ["down", "--home", str(home), *flags])


def heard(home: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((home / "heard").read_text())
    return found


def test_a_limit_reaches_the_supervisor_with_its_signal(tmp_path: Path) -> None:
    """The signal carries no number: it lies in the home by then."""
    with supervisor(tmp_path):
        assert down(tmp_path, "--drain-limit", "7.5") == 0
    assert heard(tmp_path) == {"signals": 1, "limit_s": 7.5}


def test_who_ended_the_fleet_is_on_record(tmp_path: Path) -> None:
    """By name, with the pid that was told to end, and how."""
    with supervisor(tmp_path) as process:
        assert down(tmp_path, "--drain-limit", "7.5") == 0
    (line,) = lines_of(tmp_path / "audit")
    assert line.record is not None
    assert (line.record["who"], line.record["action"]) == (user_name(), "fleet.down")
    assert line.record["after"] == {"pid": process.pid, "now": False, "drain_limit_s": 7.5}


def test_without_a_limit_the_supervisor_uses_its_own(tmp_path: Path) -> None:
    """Nothing is left in the home that a later drain could take for its own."""
    with supervisor(tmp_path):
        assert down(tmp_path) == 0
    assert heard(tmp_path) == {"signals": 1}
    assert not (tmp_path / "drain.json").exists()


def test_a_fleet_that_drains_gets_no_second_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would end work in hand at once; a new limit needs none, and who is left is shown."""
    with supervisor(tmp_path, DRAINING):
        assert down(tmp_path, "--drain-limit", "0") == 0
    assert heard(tmp_path) == {"signals": 0, "limit_s": 0}
    assert "waiting for torch, helix\n" in capsys.readouterr().err


def test_json_names_whom_the_end_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One document, and nothing on stderr."""
    with supervisor(tmp_path, DRAINING) as process:
        assert down(tmp_path, "--drain-limit", "1", "--json") == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["pid"] == process.pid
    assert set(document["waited_for"]) == {"torch", "helix"}
    assert said.err == ""


def test_in_vain_it_says_for_whom_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fleet goes on draining."""
    with supervisor(tmp_path, DRAINING, ends=False) as process:
        assert down(tmp_path, "--timeout", "0.2") == 1
        assert process.poll() is None
    line = capsys.readouterr().err.splitlines()[-1]
    for word in ("torch, helix", "--timeout", "--drain-limit", "--now"):
        assert word in line


def test_at_once_and_with_a_limit_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything is signalled."""
    with supervisor(tmp_path) as process:
        assert down(tmp_path, "--now", "--drain-limit", "3") == 2
        assert process.poll() is None
    assert "--drain-limit" in capsys.readouterr().err
