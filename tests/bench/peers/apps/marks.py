"""The task that every system runs: it notes when it began, and that is all.

Each process writes into a file of its own in `$PEERS_MARKS`, mapped into memory: a count, then one
CLOCK_MONOTONIC time in ns for each start. That costs less than a microsecond and needs nothing of
the system under test, so every one is measured by the same method. Standard library alone: this
runs in the environment of each of them.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

CAPACITY = 1 << 20
"""Starts that fit into one file; it is sparse."""
_WORD = struct.Struct("=Q")


class Marks:
    """The starts of this process."""

    def __init__(self) -> None:
        self.count = 0
        self.map: mmap.mmap | None = None
        self.lock = threading.Lock()  # taskiq runs plain functions in threads

    def add(self, now_ns: int) -> None:
        """One more. The file is made with the first: workers are forked off after the import."""
        with self.lock:
            if self.map is None:
                self.map = _open(Path(os.environ["PEERS_MARKS"]) / f"{os.getpid()}.starts")
            self.count += 1
            _WORD.pack_into(self.map, 8 * self.count, now_ns)
            _WORD.pack_into(self.map, 0, self.count)


_marks = Marks()


def mark() -> None:
    """Note the start of a task."""
    _marks.add(time.monotonic_ns())


def noop(_ctx: object) -> None:
    """The task as a Nova runs it."""
    mark()


def count(directory: Path) -> int:
    """How many tasks have begun, in all processes."""
    return sum(_count_of(path) for path in directory.glob("*.starts"))


def starts(directory: Path) -> list[int]:
    """When each began (CLOCK_MONOTONIC, ns), in order."""
    found: list[int] = []
    for path in directory.glob("*.starts"):
        with path.open("rb") as file:
            data = file.read(8 + 8 * _count_of(path))
        found += struct.unpack_from(f"={len(data) // 8 - 1}Q", data, 8)
    return sorted(found)


def shares(whole: int, lanes: int) -> list[int]:
    """`whole` in parts that differ by one at most."""
    return [whole // lanes + (1 if lane < whole % lanes else 0) for lane in range(lanes)]


async def one_at_a_time(
    submit: Callable[[], Awaitable[object] | object], times: int, where: Path | None = None
) -> dict[str, list[float]]:
    """Submit to an idle system, again and again: when (ns, before the call), and the call's ms.

    The first is left out: with it clients import and connect. The times are those of the others.
    `where` the marks are: `$PEERS_MARKS` if it is not said.
    """
    directory = where or Path(os.environ["PEERS_MARKS"])
    sent_ns, call_ms = [], []
    for _ in range(times + 1):
        before = count(directory)
        # No timer of theirs or ours is met in step.
        await asyncio.sleep(random.uniform(0.08, 0.16))
        began_ns = time.monotonic_ns()
        waiting = submit()
        if isinstance(waiting, Awaitable):
            await waiting
        call_ms.append((time.monotonic_ns() - began_ns) / 1e6)
        sent_ns.append(began_ns)
        await asyncio.sleep(0.02)  # nobody asks for anything while it starts
        deadline_s = time.monotonic() + 20
        while count(directory) == before:
            if time.monotonic() > deadline_s:
                raise TimeoutError("a task did not start within 20 s")
            await asyncio.sleep(0.005)
    return {"sent_ns": sent_ns[1:], "call_ms": call_ms[1:]}


def _open(path: Path) -> mmap.mmap:
    with path.open("w+b") as file:
        file.truncate(8 * CAPACITY)
        return mmap.mmap(file.fileno(), 8 * CAPACITY)


def _count_of(path: Path) -> int:
    with path.open("rb") as file:
        return int(_WORD.unpack(file.read(8).ljust(8, b"\0"))[0])
