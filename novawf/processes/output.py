"""A log that keeps its beginning and its end, bounded on disk while it grows.

Layout: the first `head_bytes` go to PATH as they come. What follows goes to segments
`PATH.part.OFFSET` (OFFSET counts from the first byte of the whole output) of `tail_bytes` each, of
which the last two are kept. `close` appends the last `tail_bytes` to PATH, behind one line that
says how much was left out, and removes the segments. So the disk holds at most
head + 3 x tail bytes, and `read_since` follows a log through all of that by offset.

Nothing is opened before the first byte. A full disk stops the log, never the writer. Standard
library only.
"""

from __future__ import annotations

# Runs in bare interpreters, where pathlib would cost 1 MB.
# ruff: noqa: PTH103, PTH108, PTH116, PTH118, PTH120, PTH208
import os
import re

RECENT_BYTES = 8192
"""How much of the end is kept in memory for reports."""

_MARK = re.compile(rb"\n\xe2\x80\xa6 (\d+) bytes left out \xe2\x80\xa6\n")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_APPEND


def _mark(left_out: int) -> bytes:
    return f"\n… {left_out} bytes left out …\n".encode()


class BoundedLog:
    """Write-only; one writer per path."""

    def __init__(self, path: str, head_bytes: int, tail_bytes: int) -> None:
        self._path = path
        self._head_bytes = head_bytes
        self._tail_bytes = max(tail_bytes, 1)
        self._head_fd = -1
        self._part_fd = -1
        self._parts: list[tuple[int, str]] = []
        self._recent = bytearray()
        self.written_bytes = 0
        self.error = ""
        """Why the log is incomplete; empty while it is not."""

    def write(self, data: bytes) -> None:
        """Take `data` in. Never raises: see `error`."""
        self._recent += data
        if len(self._recent) > 2 * RECENT_BYTES:
            del self._recent[:-RECENT_BYTES]
        start = self.written_bytes
        self.written_bytes += len(data)
        if self.error:
            return
        try:
            room = self._head_bytes - start
            if room > 0:
                self._write_head(data[:room])
            if room < len(data):
                self._write_parts(max(start, self._head_bytes), data[max(room, 0) :])
        except OSError as error:
            self.error = f"cannot write {self._path}: {error.strerror}"

    def recent(self) -> str:
        """The last `RECENT_BYTES` of the output as text."""
        return bytes(self._recent[-RECENT_BYTES:]).decode("utf-8", "replace")

    def close(self) -> None:
        """Join head and tail; the log is complete then."""
        try:
            if self._parts:
                self._join()
        except OSError as error:
            self.error = self.error or f"cannot write {self._path}: {error.strerror}"
        for fd in (self._head_fd, self._part_fd):
            if fd >= 0:
                os.close(fd)
        self._head_fd = self._part_fd = -1

    def _write_head(self, data: bytes) -> None:
        if self._head_fd < 0:
            try:
                self._head_fd = os.open(self._path, _FLAGS, 0o600)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
                self._head_fd = os.open(self._path, _FLAGS, 0o600)
        _write_all(self._head_fd, data)

    def _write_parts(self, offset: int, data: bytes) -> None:
        if self._head_fd < 0:
            self._write_head(b"")
        while data:
            room = self._parts[-1][0] + self._tail_bytes - offset if self._parts else 0
            if room <= 0:
                self._rotate(offset)
                room = self._tail_bytes
            _write_all(self._part_fd, data[:room])
            offset += min(room, len(data))
            data = data[room:]

    def _rotate(self, offset: int) -> None:
        if self._part_fd >= 0:
            os.close(self._part_fd)
        path = f"{self._path}.part.{offset}"
        self._part_fd = os.open(path, _FLAGS, 0o600)
        self._parts.append((offset, path))
        while len(self._parts) > 2:
            os.unlink(self._parts.pop(0)[1])

    def _join(self) -> None:
        kept = b"".join(_read_all(path) for _, path in self._parts)[-self._tail_bytes :]
        left_out = self.written_bytes - self._head_bytes - len(kept)
        _write_all(self._head_fd, (_mark(left_out) if left_out > 0 else b"") + kept)
        for _, path in self._parts:
            os.unlink(path)
        self._parts.clear()


def read_since(path: str, offset: int, head_bytes: int, limit: int = 1 << 16) -> tuple[bytes, int]:
    """What the log holds from `offset` of the output on, at most `limit` bytes, and where to go on.

    Bytes that are gone already are replaced by the line that says so. Nothing new: (b"", offset).
    Works the same while the log grows, when it is complete, and when its writer was killed.
    """
    size = _size(path)
    if offset < min(size, head_bytes):
        data = _read_at(path, offset, min(limit, head_bytes - offset))
        return data, offset + len(data)
    parts = _parts(path)
    if parts and size <= head_bytes:
        if offset < head_bytes:  # written between the two looks: parts come after a whole head
            data = _read_at(path, offset, min(limit, head_bytes - offset))
            if data:
                return data, offset + len(data)
        return _read_parts(parts, offset, limit)
    mark = _MARK.match(_read_at(path, head_bytes, 64)) if size > head_bytes else None
    shift = int(mark[1]) - len(mark[0]) if mark else 0
    if mark and offset < head_bytes + int(mark[1]):
        return _mark(head_bytes + int(mark[1]) - offset), head_bytes + int(mark[1])
    data = _read_at(path, offset - shift, limit)
    return data, offset + len(data)


def _parts(path: str) -> list[tuple[int, str]]:
    folder, name = os.path.split(path)
    prefix = f"{name}.part."
    try:
        names = [entry for entry in os.listdir(folder or ".") if entry.startswith(prefix)]
    except OSError:
        return []
    return sorted((int(entry[len(prefix) :]), os.path.join(folder, entry)) for entry in names)


def _read_parts(parts: list[tuple[int, str]], offset: int, limit: int) -> tuple[bytes, int]:
    if offset < parts[0][0]:
        return _mark(parts[0][0] - offset), parts[0][0]
    start, path = next(part for part in reversed(parts) if part[0] <= offset)
    data = _read_at(path, offset - start, limit)
    return data, offset + len(data)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _read_at(path: str, position: int, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""  # rotated away between the look and the read: the next call sees the gap
    try:
        return os.pread(fd, limit, position)
    finally:
        os.close(fd)


def _read_all(path: str) -> bytes:
    return _read_at(path, 0, 1 << 30)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
