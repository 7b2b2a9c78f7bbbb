"""Reading the audit trail: its records in order, and whether its chain holds.

A reader changes nothing and keeps no writer waiting: it looks at the files as they were when it
began. What it cannot vouch for, it says.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from novawf.audit import files
from novawf.audit.record import BEGINNING, PRUNED, TORN, Link, digest_of, parse

LOOK_S: Final = 1.0
"""How long a reader waits for the lock; without it what it sees may be a moment apart."""
FAULTS_SHOWN: Final = 20


class Place(NamedTuple):
    """Where a line ends: number of the file, and bytes into it."""

    file: int
    offset: int


class Line(NamedTuple):
    """One line of a file."""

    file: Path
    number: int
    """From 1; from the place where reading began, if that was within the file."""
    raw: bytes
    record: dict[str, Any] | None
    """None for what is no record: torn, or tampered with."""
    end: Place


@dataclass(frozen=True, slots=True)
class Fault:
    """A place where the chain does not hold."""

    file: str
    line: int
    kind: str
    """`hash`, `link`, `sequence`, `torn`, `missing` or `head`."""
    what: str

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"file": self.file, "line": self.line, "kind": self.kind, "what": self.what}


@dataclass(slots=True)
class Verdict:
    """What `verify` has found."""

    records: int = 0
    files: int = 0
    first_ts: str | None = None
    last: Link = BEGINNING
    last_ts: str | None = None
    torn: list[dict[str, Any]] = field(default_factory=list)
    """Lines that writers left which were killed, each named by the record after it."""
    faults: list[Fault] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the chain holds."""
        return not self.faults


class _Seen(NamedTuple):
    files: list[tuple[int, Path, int]]
    """Number, path and size."""
    head: Link | None
    head_there: bool


def lines_of(directory: Path, after: Place = Place(0, 0)) -> Iterator[Line]:  # noqa: B008 - frozen
    """Every line as it is now, or those after a place, the oldest first. Raises OSError."""
    for number, path, size in _look(directory).files:
        if number >= after.file:
            yield from _lines(number, path, size, after.offset if number == after.file else 0)


def last_lines(directory: Path, records: int) -> list[Line]:
    """The lines from the last so many records on, the oldest first; reads no more files than that
    takes. Raises OSError."""
    found: list[Line] = []
    for number, path, size in reversed(_look(directory).files):
        found = [*_lines(number, path, size, 0), *found]
        places = [index for index, line in enumerate(found) if line.record is not None]
        if len(places) >= records:
            return found[places[-records] :]
    return found


def verify(directory: Path) -> Verdict:
    """Walk the whole chain. Raises OSError for what cannot be read; no trail at all is well."""
    seen = _look(directory)
    verdict = Verdict(files=len(seen.files))
    walk = _Walk(verdict)
    expected = seen.files[0][0] if seen.files else 1
    for number, path, size in seen.files:
        if number != expected:
            missing = files.file_name(expected)
            verdict.faults.append(Fault(missing, 0, "missing", f"{missing} is not there"))
            walk.broken = True
        expected = number + 1
        try:
            for line in _lines(number, path, size, 0):
                walk.line(line)
        except FileNotFoundError:  # the oldest may be removed while we read
            walk.broken = True
    walk.end(seen)
    return verdict


class _Walk:
    """Follows the chain line by line."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.broken = False
        """The last record's link is not known: the next one is taken as it is."""
        self._junk: list[Line] = []
        self._begun_by: Link | None = None
        self._pruned: dict[str, Any] = {}
        """File → hash of its last record, as the trail itself tells of what was removed."""

    def line(self, line: Line) -> None:
        if line.record is None:
            self._junk.append(line)
            return
        record, verdict = line.record, self.verdict
        self._set_aside(record)
        if digest_of(record) != record["hash"]:
            self._fault(line, "hash", f"record {record['sequence']} was changed: its hash differs")
        elif not self.broken and verdict.records:
            self._check_link(line, record)
        elif not verdict.records:
            self._begun_by = Link(record["sequence"], str(record["prev"]))
        self.broken = False
        verdict.records += 1
        verdict.last = Link(record["sequence"], record["hash"])
        verdict.last_ts = record["ts"]
        verdict.first_ts = verdict.first_ts or record["ts"]
        if record["action"] == PRUNED and isinstance(record["after"], dict):
            self._pruned[str(record["target"])] = record["after"].get("last_hash")

    def end(self, seen: _Seen) -> None:
        """What only the whole tells."""
        verdict = self.verdict
        if self._junk:
            junk, size = self._junk[0], sum(len(line.raw) for line in self._junk)
            was_whole = seen.head is not None and seen.head.sequence > verdict.last.sequence
            kind = "hash" if was_whole else "torn"
            said = "which was whole, was changed" if was_whole else (
                "is torn: its writer was killed, and nobody has written since"
            )  # fmt: skip
            self._fault(junk, kind, f"the last line ({size} bytes) {said}")
        elif (fault := self._head_fault(seen)) is not None:
            verdict.faults.append(fault)
        self._check_beginning(seen)

    def _check_link(self, line: Line, record: dict[str, Any]) -> None:
        last = self.verdict.last
        if record["sequence"] != last.sequence + 1:
            self._fault(
                line, "sequence", f"record {record['sequence']} comes after record {last.sequence}"
            )
        elif record["prev"] != last.hash:
            self._fault(
                line, "link", f"record {record['sequence']} does not link to the one before it"
            )

    def _set_aside(self, record: dict[str, Any]) -> None:
        """Lines that are no records are well if the next record names just their bytes."""
        if not self._junk:
            return
        junk, self._junk = self._junk, []
        raw = b"".join(line.raw for line in junk)
        before = record["before"] if record["action"] == TORN else None
        said = before if isinstance(before, dict) else {}
        if said.get("sha256") in (_sha256(raw), _sha256(raw.removesuffix(b"\n"))):
            self.verdict.torn.append(
                {"file": junk[0].file.name, "line": junk[0].number, "bytes": said.get("bytes")}
            )
        else:
            self._fault(junk[0], "hash", "is no record, and no record names it as torn")
            self.broken = True

    def _head_fault(self, seen: _Seen) -> Fault | None:
        last, head = self.verdict.last, seen.head
        if head is None:
            if last.sequence <= 1 and not seen.head_there:  # killed before the first was written
                return None
            return Fault(files.HEAD, 0, "head", "is missing, or is no head file")
        if head.sequence > last.sequence:
            lost = head.sequence - last.sequence
            return Fault(
                files.HEAD, 0, "missing",
                f"{lost} at the end, up to record {head.sequence}, removed: head tells of them",
            )  # fmt: skip
        if head.sequence == last.sequence and head.hash != last.hash:
            return Fault(files.HEAD, 0, "head", f"its hash is not that of record {last.sequence}")
        if head.sequence < last.sequence - 1:
            return Fault(
                files.HEAD, 0, "head",
                f"it tells of record {head.sequence}, and the last is {last.sequence}",
            )  # fmt: skip
        return None

    def _check_beginning(self, seen: _Seen) -> None:
        """The first record there is begins the chain, or its file's predecessor was pruned."""
        begun, first = self._begun_by, seen.files[0] if seen.files else None
        if begun is None or first is None:
            return
        if first[0] == 1:
            if begun != Link(1, BEGINNING.hash):
                what = f"the trail begins with record {begun.sequence}: what was before is missing"
                self.verdict.faults.insert(0, Fault(first[1].name, 1, "missing", what))
            return
        before = files.file_name(first[0] - 1)
        if self._pruned.get(before) != begun.hash:
            what = f"{before} is not there, and no record tells that it was pruned"
            self.verdict.faults.insert(0, Fault(before, 0, "missing", what))

    def _fault(self, line: Line, kind: str, what: str) -> None:
        if len(self.verdict.faults) < FAULTS_SHOWN:
            self.verdict.faults.append(Fault(line.file.name, line.number, kind, what))


def _look(directory: Path) -> _Seen:
    """Files, sizes and head of one moment."""
    if not directory.is_dir():
        return _Seen([], None, False)
    with files.locked(directory, fcntl.LOCK_SH, LOOK_S):
        found = [(number, path, path.stat().st_size) for number, path in files.files_of(directory)]
        return _Seen(found, files.read_head(directory), (directory / files.HEAD).exists())


def _lines(file_number: int, path: Path, size: int, offset: int) -> Iterator[Line]:
    """The lines from `offset` on, within the first `size` bytes."""
    with path.open("rb") as file:
        file.seek(offset)
        for number, raw in enumerate(file, 1):
            offset += len(raw)
            if offset > size:
                return
            yield Line(path, number, raw, parse(raw), Place(file_number, offset))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
