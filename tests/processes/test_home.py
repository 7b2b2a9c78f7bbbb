"""One supervisor to a home, and the file that tells where its fleet is."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from novawf.errors import HomeInUse
from novawf.processes.home import (
    FLEET,
    LOCK,
    HomeLock,
    lock_holder,
    read_fleet_file,
    remove_fleet_file,
    write_fleet_file,
)

HOLDER = """
import subprocess, sys
from pathlib import Path
from novawf.processes.home import HomeLock
HomeLock(Path(sys.argv[1])).acquire()
child = subprocess.Popen(["cat"])  # lives until the test closes the standard input of both
print("held", flush=True)
child.wait()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that owns the home, with a child that outlives it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


def test_a_held_home_is_refused_naming_its_owner(
    holder: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The user learns whom to stop; and the refused one leaves the owner's pid in place."""
    with pytest.raises(HomeInUse, match=f"supervisor with pid {holder.pid}: .*novawf down"):
        HomeLock(tmp_path).acquire()
    assert lock_holder(tmp_path) == str(holder.pid)


def test_a_home_is_free_once_its_owner_was_killed(
    holder: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """The kernel lets go of the lock, and nothing that the owner started holds it."""
    holder.kill()
    holder.wait()
    lock = HomeLock(tmp_path)
    lock.acquire()
    assert lock_holder(tmp_path) == str(os.getpid())
    lock.release()


def test_a_momentary_look_at_the_lock_does_not_refuse_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that looks who holds the lock shares it for an instant: the start tries again."""
    look = os.open(tmp_path / LOCK, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(look))
    lock = HomeLock(tmp_path)
    lock.acquire()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(look)  # the start had to wait for it
    lock.release()


def test_a_released_home_may_be_owned_again(tmp_path: Path) -> None:
    """Releasing twice, or what was never held, is no error."""
    first, second = HomeLock(tmp_path), HomeLock(tmp_path)
    second.release()
    first.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_fleet_file_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    """Mode 0600 whatever the umask, and whatever file was there before."""
    (tmp_path / FLEET).write_text("{}")
    (tmp_path / FLEET).chmod(0o644)
    before = os.umask(umask)
    try:
        write_fleet_file(tmp_path, {"pid": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FLEET).stat().st_mode) == 0o600
    assert read_fleet_file(tmp_path) == {"pid": 1}


def test_the_fleet_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """Who reads has the old file or the new one, even when the writing fails half-way."""
    write_fleet_file(tmp_path, {"pid": 1})
    with (tmp_path / FLEET).open() as reading:
        write_fleet_file(tmp_path, {"pid": 2})
        assert '"pid": 1' in reading.read()
    with pytest.raises(TypeError):
        write_fleet_file(tmp_path, {"pid": 3, "metrics_port": object()})
    assert read_fleet_file(tmp_path) == {"pid": 2}
    write_fleet_file(tmp_path, {"pid": 4})  # what was left of the failed one is in nobody's way
    assert read_fleet_file(tmp_path) == {"pid": 4}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", None])
def test_a_fleet_file_that_cannot_be_read_says_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    """Torn, no object, no text, or not there: all the same to who looks for a fleet."""
    if content is not None:
        (tmp_path / FLEET).write_bytes(content)
    assert read_fleet_file(tmp_path) is None


def test_a_fleet_file_is_removed_once_or_more(tmp_path: Path) -> None:
    """An end that was cut short is repeated without an error."""
    write_fleet_file(tmp_path, {"pid": 1})
    remove_fleet_file(tmp_path)
    remove_fleet_file(tmp_path)
    assert read_fleet_file(tmp_path) is None
