"""Writing the audit trail: one record for each thing that somebody changed.

Append-only JSON lines, each with the hash of the one before. Any process may append: each takes a
lock for the time of one append, and finds the chain's head at the end of the file, so no process
keeps anything that another could make stale. A record is written with one `write`.

What is SIGKILLed where:

* in the middle of that write: the line is torn. It stays, and the next writer's first record
  (`audit.torn`) names its bytes and their hash; until then `verify` says that the end is torn.
* between the record and `head`: `head` is one behind, which is no fault.
* holding the lock: the kernel lets go of it.

The audit is telemetry: a record that cannot be written costs a warning, never the action. Nothing
here raises. But a chain that is broken is never mended in silence: the next writer goes on from
what `head` says, so that the gap stays, and says so (decision 022).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import pwd
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from novawf.audit import files
from novawf.audit.record import (
    BROKEN,
    PRUNED,
    TORN,
    Link,
    content,
    sealed,
    torn_state,
)
from novawf.clock import SystemClock, iso
from novawf.errors import OutOfReach

log = logging.getLogger("novawf.audit")

PATIENCE_S: Final = 2.0
"""How long a record waits for the lock; others hold it for a millisecond."""
FLUSH_S: Final = 2.0
"""How long the end of a process waits for its last records."""
BACKLOG: Final = 10_000
"""Records that wait for a slow disk; what comes on top is dropped, and counted."""


class Bounds(NamedTuple):
    """What a writer needs of `[audit]`."""

    enabled: bool = True
    max_bytes: int = 16_777_216
    keep_files: int = 0
    fsync: bool = False

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Bounds:
        """From `settings.json`, or from the settings themselves; what is no such value is left."""
        known = {
            name: said[name]
            for name, default in cls._field_defaults.items()
            if type(said.get(name)) is type(default)
        }
        return cls(**known)


@dataclass(slots=True)
class Change:
    """What `AuditLog.change` is told of its effect."""

    before: Any
    after: Any


def user_name() -> str:
    """Who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


class AuditLog:
    """The trail of one home. Cheap to make; nothing is opened, read or made before a record."""

    def __init__(self, home: Path | None, bounds: Bounds | None = None) -> None:
        """Without `bounds`: as the last fleet of this home had them. No `home`: no records."""
        self.directory = None if home is None else files.directory_of(Path(home))
        self._bounds = bounds
        self._failing = ""

    @classmethod
    def disabled(cls) -> Self:
        """One that records nothing."""
        return cls(None)

    def record(
        self,
        *,
        who: str,
        action: str,
        target: Any = None,
        before: Any = None,
        after: Any = None,
        why: str = "",
    ) -> None:
        """Append one record, masked. Blocks for about 0.5 ms, `PATIENCE_S` at the worst; never
        raises: what cannot be written is logged.

        `who` is a user's name, `supervisor`, `safety`, `hook NAME`; `action` a dotted verb.
        """
        if self.directory is None:
            return
        try:
            said = content(
                ts=_now(), who=who, pid=os.getpid(), action=action, target=target, before=before,
                after=after, why=why,
            )  # fmt: skip
        except Exception as error:  # telemetry fails open, whatever it was given
            self.warn(action, error)
        else:
            self.keep(said)

    @contextlib.contextmanager
    def change(
        self,
        *,
        who: str,
        action: str,
        target: Any = None,
        before: Any = None,
        after: Any = None,
        why: str = "",
    ) -> Iterator[Change]:
        """Record what the block does, when it is done; it may fill in what was, and what came of
        it. What raises has changed nothing and is not recorded, unless no reply came, or nobody
        waited for it: then it may have.
        """
        change, done = Change(before, after), True
        try:
            yield change
        except OutOfReach as error:
            change.after = {"unknown": str(error)}
            raise
        except Exception:
            done = False
            raise
        except BaseException:
            change.after = {"unknown": "interrupted"}
            raise
        finally:
            if done:
                self.record(
                    who=who, action=action, target=target, before=change.before,
                    after=change.after, why=why,
                )  # fmt: skip

    def keep(self, said: Mapping[str, Any]) -> None:
        """`record` with a record's content, for whoever made that earlier. Never raises."""
        try:
            self._append(said)
        except Exception as error:
            self.warn(said["action"], error)
        else:
            self._failing = ""

    def _append(self, said: Mapping[str, Any]) -> None:
        if self.directory is None:
            return
        bounds = self._bounds
        if bounds is None:
            bounds = self._bounds = Bounds.of(files.read_settings(self.directory))
        if bounds.enabled:
            _make_private(self.directory)
            with files.locked(self.directory, fcntl.LOCK_EX, PATIENCE_S) as ours:
                if not ours:
                    raise TimeoutError(f"another process has held its lock for {PATIENCE_S:g} s")
                _Append(self.directory, bounds).write(said)

    def warn(self, action: str, error: Exception) -> None:
        """Once for each kind of fault: a full disk would fill the log too."""
        why = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
        if why != self._failing:
            self._failing = why
            log.warning("audit: %s was not recorded in %s: %s", action, self.directory, why)


class BackgroundAudit:
    """The same for a process whose event loop may not wait for a disk: a thread writes.

    What it was told within the last milliseconds before a SIGKILL is lost.
    """

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._queue: queue.Queue[Callable[[], None]] = queue.Queue(BACKLOG)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def record(
        self,
        *,
        who: str,
        action: str,
        target: Any = None,
        before: Any = None,
        after: Any = None,
        why: str = "",
    ) -> None:
        """See `AuditLog.record`; does not wait."""
        if self._audit.directory is None:
            return
        try:
            said = content(
                ts=_now(), who=who, pid=os.getpid(), action=action, target=target, before=before,
                after=after, why=why,
            )  # fmt: skip
        except Exception as error:
            self._audit.warn(action, error)
            return
        self._put(lambda: self._write(said))

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Wait until everything is written, but not for ever."""
        if self._thread is None:
            return
        written = threading.Event()
        self._put(written.set)
        written.wait(timeout_s)

    def _put(self, work: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self._dropped += 1

    def _write(self, said: Mapping[str, Any]) -> None:
        if dropped := self._dropped:
            self._dropped = 0
            lost = f"{dropped:,} records were dropped: the disk is too slow"
            self._audit.record(who=said["who"], action="audit.dropped", after=dropped, why=lost)
        self._audit.keep(said)

    def _run(self) -> None:
        while True:
            self._queue.get()()


def share_settings(home: Path, said: Mapping[str, Any]) -> None:
    """Tell commands how this fleet has set `[audit]`. Raises OSError."""
    directory = files.directory_of(home)
    _make_private(directory)
    files.write_private(directory / files.SETTINGS, json.dumps(said) + "\n")


class _Append:
    """One append, under the lock."""

    def __init__(self, directory: Path, bounds: Bounds) -> None:
        self.directory = directory
        self.bounds = bounds

    def write(self, said: Mapping[str, Any]) -> None:
        """Raises OSError; what was written of a record is taken back then."""
        there = files.files_of(self.directory)
        number, path = there[-1] if there else (1, self.directory / files.file_name(1))
        with _opened(path) as file:
            size = os.fstat(file).st_size
            lines, link = self._before(said, file, size, there[:-1])
            line, link = sealed(said, link)
            whole = size + len(lines) + len(line)
            full = size > 0 and not lines and whole > self.bounds.max_bytes
            if not full:
                self._put(file, size, lines + line)
        if full:
            with _opened(self.directory / files.file_name(number + 1)) as file:
                self._put(file, 0, line)
        files.write_head(self.directory, link)
        if full and self.bounds.keep_files:
            self._prune(files.files_of(self.directory)[: -self.bounds.keep_files], said)

    def _before(
        self,
        said: Mapping[str, Any],
        file: int,
        size: int,
        earlier: list[tuple[int, Path]],
    ) -> tuple[bytes, Link]:
        """What must be written before the record, and the link that it follows.

        Looks at how the file ends: whole, torn by a writer that was killed, or tampered with.
        """
        head = files.read_head(self.directory)
        ending = files.ending_of(file, size)
        last = ending.link or files.last_link(earlier)
        prefix = b"" if ending.closed and ending.junk[-1:] in (b"", b"\n") else b"\n"
        lost = head is not None and head.sequence > last.sequence
        if not lost and not ending.junk:
            return prefix, last
        own = {**said, "who": "audit", "target": None, "before": None, "after": None}
        if lost and head is not None:
            first = last.sequence + 1
            what = f"record {first}" if first == head.sequence else (
                f"records {first} to {head.sequence}"
            )  # fmt: skip
            why = f"{what} are missing or were changed: `novawf audit verify` says where"
            log.warning("audit: the chain in %s is broken: %s", self.directory, why)
            line, link = sealed({**own, "action": BROKEN, "why": why}, head)
        else:
            why = "a writer was killed while it wrote; its line is set aside"
            torn = {**own, "action": TORN, "before": torn_state(ending.junk), "why": why}
            line, link = sealed(torn, last)
        return prefix + line, link

    def _put(self, file: int, size: int, data: bytes) -> None:
        """One write. One that is short is taken back: a full disk leaves no torn line."""
        try:
            written = os.write(file, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.bounds.fsync:
                os.fsync(file)
        except OSError:
            os.ftruncate(file, size)
            raise

    def _prune(self, old: list[tuple[int, Path]], said: Mapping[str, Any]) -> None:
        """Remove the oldest files; the trail says so before it is done."""
        for _, path in old:
            link = files.last_link([(0, path)])
            gone = {
                **said, "who": "audit", "action": PRUNED, "target": path.name, "before": None,
                "after": {"last_sequence": link.sequence, "last_hash": link.hash},
                "why": f"[audit] keep_files is {self.bounds.keep_files}",
            }  # fmt: skip
            there = files.files_of(self.directory)
            with _opened(there[-1][1]) as file:
                line, next_link = sealed(gone, files.last_link(there))
                self._put(file, os.fstat(file).st_size, line)
            files.write_head(self.directory, next_link)
            path.unlink()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(path, flags, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _make_private(directory: Path) -> None:
    """Home and directory, each with mode 0700 where they are new. Raises OSError."""
    if not directory.is_dir():
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)


def _now() -> str:
    return iso(SystemClock(0).wall_s())
