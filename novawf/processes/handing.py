"""Orders with descriptors, handed from the keeper server to processes that wait for them.

One message on each channel, and its sender never waits: it is taken whole by the socket's buffer.
What is longer than that surely allows goes by a memory file. Standard library only: it runs in
bare interpreters.
"""

from __future__ import annotations

import array
import os
import socket

from novawf.processes.wire import Decoder, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FDS = 4
"""Descriptors of one message; a memory file may come on top."""
INLINE_BYTES = 32 << 10
_SAMPLE = {
    "argv": ["sample"] * 8,
    "env": {f"SAMPLE_{number}": "x" * 60 for number in range(30)},
    "sizes": [0.5, 4096, None],
}
_ROOM = socket.CMSG_SPACE((MAX_FDS + 1) * array.array("i").itemsize)


def hand(channel: socket.socket, message: dict[str, Any], fds: list[int]) -> bool:
    """Send one message. False: its receiver is gone, or there was no memory; it has nothing."""
    frame = encode(message)
    memory = -1
    try:
        if len(frame) > INLINE_BYTES:
            memory = os.memfd_create("order")
            with open(memory, "wb", closefd=False) as file:
                file.write(frame)
            frame, fds = encode({"memory_bytes": len(frame)}), [*fds, memory]
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        flags = socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT
        return channel.sendmsg([frame], [rights] if fds else [], flags) == len(frame)
    except OSError:
        return False
    finally:
        if memory >= 0:
            os.close(memory)


def take(channel: socket.socket, flags: int = 0) -> tuple[dict[str, Any], list[int]] | None:
    """The message and its descriptors, the lowest free ones in order, open across an exec.

    Waits for it. None: the sender is gone, or with MSG_DONTWAIT has not sent anything.
    """
    decoder, fds = Decoder(), list[int]()
    messages: list[dict[str, Any]] = []
    while not messages:
        try:
            data, ancillary, _, _ = channel.recvmsg(1 << 16, _ROOM, flags)
        except OSError:
            return None
        if not data:
            return None
        fds += received(ancillary)
        messages = decoder.feed(data)
        flags = 0  # it was sent at once: the rest is here, or its sender dies
    if "memory_bytes" not in messages[0]:
        return messages[0], fds
    memory = fds.pop()
    try:
        return Decoder().feed(os.pread(memory, messages[0]["memory_bytes"], 0))[0], fds
    finally:
        os.close(memory)


def rehearse() -> None:
    """Hand over an order to nobody, so that a real one finds the memory it takes there.

    After a fork each page that is written to is copied first, which costs more than the work.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError:  # out of descriptors: a real order will tell
        return
    with ours, theirs:
        given = take(theirs) if hand(ours, _SAMPLE, [ours.fileno()]) else None
    for fd in given[1] if given is not None else ():
        os.close(fd)


def received(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came with a `recvmsg`."""
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return list(fds)
