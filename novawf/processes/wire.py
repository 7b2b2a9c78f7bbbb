"""Frames on a byte stream between our own processes: four bytes of length, then JSON.

Standard library only: it runs in bare interpreters. It trusts its peer to be one of ours, yet
refuses frames beyond a limit, so that a broken one costs a connection and no memory.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` would cost a bare interpreter memory for nothing
    from typing import Any

MAX_FRAME_BYTES = 4 << 20
"""Room for an argv and an environment of the largest task (1 MB) with JSON's escapes."""

_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class FrameError(ValueError):
    """The peer sent something that is no frame."""


def encode(message: dict[str, Any]) -> bytes:
    """One message as bytes. Raises TypeError or ValueError for what JSON cannot hold."""
    body = _encode(message).encode()
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Turns received bytes into messages, however they were cut."""

    def __init__(self, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._limit = limit_bytes
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that `data` completes. Raises FrameError."""
        if self._rest:
            data = self._rest + data
        messages: list[dict[str, Any]] = []
        at, end = 0, len(data)
        while end - at >= 4:
            size = int.from_bytes(data[at : at + 4], "big")
            if size > self._limit:
                raise FrameError(f"a frame of {size} bytes, {self._limit} are allowed")
            if end - at - 4 < size:
                break
            at += 4 + size
            messages.append(_parse(data[at - size : at]))
        self._rest = data[at:] if at < end else b""
        return messages

    def leftover(self) -> bytes:
        """Bytes received beyond the last whole message; whoever reads on must begin with them."""
        return self._rest


def _parse(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise FrameError(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("not a JSON object")
    return message
