"""The archive on disk: compressed JSON lines, one file a day, and an index to find a line by id.

`tasks-2026-03-01.jsonl.gz` is a row of gzip members, one a batch: `zcat` and everything else that
knows gzip reads it as one text. Beside it `tasks-2026-03-01.idx` holds 16 bytes a line: eight of a
hash of its id, eight of the offset of its member; and after each batch one such entry of zeros with
the length of the data, which says that the batch is whole. A search goes through the index as it
is: 16 MB, some 5 ms, for a million tasks; nothing has to be kept sorted.

The data is on disk before the index says so, and the index before `append` returns. After a crash
in between the next `append` keeps what is whole and cuts off what is torn; readers stop at it. A
lost index is built again from the data. One writer at a time: see `writing`.

Nothing here knows tasks or the store. Raises Refused when the directory cannot be used.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from novawf.errors import Refused

_ENTRY: Final = struct.Struct("<8sQ")
_WHOLE: Final = bytes(8)
"""Stands for the hash in the entry that ends a batch."""
_CHUNK: Final = 1 << 18
_GZIP: Final = 31
"""`wbits` of zlib for one gzip member."""
_NAME: Final = re.compile(r"(?P<stem>[a-z]+)-(?P<day>\d{4}-\d\d-\d\d)\.jsonl\.gz")


class Line(NamedTuple):
    """One line to keep: the id to find it by ('' for none), and its JSON text."""

    id: str
    text: str


class Kept(NamedTuple):
    """One file of an archive. `lines` counts what has an id."""

    path: Path
    day: str
    bytes: int
    lines: int


@contextlib.contextmanager
def writing(directory: Path, stem: str) -> Iterator[bool]:
    """Be the only writer of `stem`; False when somebody else is. Ends with the process, too."""
    with _usable(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / f".{stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            with _usable(directory):
                _mend_newest(directory, stem)
            yield True
    finally:
        os.close(lock)


def append(directory: Path, stem: str, day: str, lines: Sequence[Line]) -> int:
    """Add lines to the file of `day` and see them on disk; returns the bytes they take there.

    Call it only inside `writing`. Either all lines are kept or, when it raises, none has to be.
    """
    if not lines:
        return 0
    text = "".join(f"{line.text}\n" for line in lines).encode()
    packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    member = packer.compress(text) + packer.flush()
    path = directory / f"{stem}-{day}.jsonl.gz"
    with _usable(directory):
        is_new = not path.exists()
        start = 0 if is_new else _mend(path)
        with _open(path) as data:
            try:
                data.seek(start)
                _write(data, member)
                _sync(data)
                entries = b"".join(_ENTRY.pack(_hash(ln.id), start) for ln in lines if ln.id)
                with _open(_index_of(path)) as index:
                    index.seek(0, os.SEEK_END)
                    _write(index, entries + _ENTRY.pack(_WHOLE, start + len(member)))
                    _sync(index)
            except OSError:
                with contextlib.suppress(OSError):
                    data.truncate(start)
                raise
        if is_new:
            _sync_directory(directory)
    return len(member)


def files(directory: Path, stem: str) -> list[Kept]:
    """The files of an archive, the oldest first."""
    found = []
    with _usable(directory):
        for path in sorted(directory.glob(f"{stem}-*.jsonl.gz")):
            if (name := _NAME.fullmatch(path.name)) and name["stem"] == stem:
                size, lines = path.stat().st_size, _count(_index_of(path))
                found.append(Kept(path, name["day"], size, lines))
    return found


def read_all(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of one file, in the order in which they were kept, up to a torn end."""
    with _usable(path.parent), path.open("rb") as data:
        for _, _, text in _members(data, 0):
            yield from map(json.loads, text.splitlines())


def find(directory: Path, stem: str, key: str, since_day: str = "") -> dict[str, Any] | None:
    """The newest line with this id, looking from the newest file back to that of `since_day`."""
    with _usable(directory):
        paths = sorted(directory.glob(f"{stem}-*.jsonl.gz"), reverse=True)
        for path in paths:
            name = _NAME.fullmatch(path.name)
            if name is None or name["stem"] != stem or name["day"] < since_day:
                continue
            if (line := _find_in(path, key)) is not None:
                return line
    return None


def _find_in(path: Path, key: str) -> dict[str, Any] | None:
    with path.open("rb") as data:
        starts = _offsets(_index_of(path), key)
        if starts is None:  # no index: slow, and right
            starts = sorted((start for start, _, _ in _members(data, 0)), reverse=True)
        wanted = json.dumps(key, ensure_ascii=False).encode()
        for start in starts:
            data.seek(start)
            _, _, text = next(_members(data, start), (0, 0, b""))
            for raw in reversed(text.splitlines()):
                if wanted in raw:
                    line = json.loads(raw)
                    if isinstance(line, dict) and line.get("task_id") == key:
                        return line
    return None


def _offsets(index: Path, key: str) -> list[int] | None:
    """Where members with this id begin, the newest first; None without an index."""
    wanted, found = _hash(key), []
    try:
        with _mapped(index) as entries:
            at = entries.rfind(wanted)
            while at >= 0:
                if at % _ENTRY.size == 0 and at + _ENTRY.size <= len(entries):
                    offset = _ENTRY.unpack_from(entries, at)[1]
                    if offset not in found:
                        found.append(offset)
                at = entries.rfind(wanted, 0, at + len(wanted) - 1)
    except FileNotFoundError:
        return None
    return found


def _mend_newest(directory: Path, stem: str) -> None:
    """A crash tears the file of its day, and the next writer may come on another."""
    newest = max(directory.glob(f"{stem}-*.jsonl.gz"), default=None)
    if newest is not None:
        _mend(newest)


def _mend(path: Path) -> int:
    """Make data and index agree, and end with a whole batch; returns the length of the data."""
    index = _index_of(path)
    size = path.stat().st_size
    try:
        with _mapped(index) as entries:
            whole, cut = _last_whole(entries)
            is_cut = cut != len(entries)
    except FileNotFoundError:
        whole, cut, is_cut = 0, 0, False
    if whole == size and not is_cut:
        return size
    if whole > size:  # data that was there is gone: whatever the index says of it is wrong
        whole, cut = 0, 0
    with _open(path) as data, _open(index) as listed:
        listed.truncate(cut)
        listed.seek(cut)
        data.seek(whole)
        end = whole
        for start, end, text in _members(data, whole):
            entries = b""
            for raw in text.splitlines():
                if task_id := json.loads(raw).get("task_id"):
                    entries += _ENTRY.pack(_hash(task_id), start)
            _write(listed, entries + _ENTRY.pack(_WHOLE, end))
        data.truncate(end)
        _sync(data)
        _sync(listed)
    return end


def _last_whole(entries: bytes | mmap.mmap) -> tuple[int, int]:
    """The length of the data at the last whole batch, and where the index goes on after it."""
    at = entries.rfind(_WHOLE)
    while at >= 0:
        if at % _ENTRY.size == 0 and at + _ENTRY.size <= len(entries):
            return _ENTRY.unpack_from(entries, at)[1], at + _ENTRY.size
        at = entries.rfind(_WHOLE, 0, at + len(_WHOLE) - 1)
    return 0, 0


def _members(data: IO[bytes], start: int) -> Iterator[tuple[int, int, bytes]]:
    """(begin, end, text) of each whole member from `start` on, where the file stands."""
    left = b""
    while True:
        unpacker, parts, read = zlib.decompressobj(_GZIP), [], 0
        while not unpacker.eof:
            chunk = left or data.read(_CHUNK)
            left = b""
            if not chunk:
                return
            read += len(chunk)
            try:
                parts.append(unpacker.decompress(chunk))
            except zlib.error:
                return
        left = unpacker.unused_data
        end = start + read - len(left)
        yield start, end, b"".join(parts)
        start = end


@contextlib.contextmanager
def _mapped(path: Path) -> Iterator[bytes | mmap.mmap]:
    """A file as bytes; an empty one cannot be mapped."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            yield mapped


def _count(index: Path) -> int:
    """Lines with an id that an index knows: entries less those that end batches."""
    try:
        entries = index.read_bytes()
    except FileNotFoundError:
        return 0
    return sum(1 for key, _ in _ENTRY.iter_unpack(entries[: len(entries) // 16 * 16]) if any(key))


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _index_of(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".jsonl.gz") + ".idx")


def _open(path: Path) -> IO[bytes]:
    """To read and write, made with mode 0600: tasks hold environments, insights are private."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb+", 0)


def _write(file: IO[bytes], data: bytes) -> None:
    """All of it: files here are unbuffered, so that nothing is written behind a failed write."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _sync(file: IO[bytes]) -> None:
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _usable(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(
            f"the archive in {directory} cannot be used: {error.strerror or error}"
        ) from None
