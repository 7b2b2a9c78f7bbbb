"""One stream entry as it comes from the store, and its fields as text. Pure.

Anyone may have written it: fields are bytes, and nothing of it may be trusted.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from novawf.errors import InvalidTask
from novawf.tasks.model import MAX_PAYLOAD_BYTES

SHOWN_FIELDS = 32
SHOWN_CHARACTERS = 500
"""How much of a refused entry is kept with it: so many fields, of each so much."""


class Entry(NamedTuple):
    """Names and values alternate in `fields`, as in XADD; a name may come twice."""

    stream: str
    id: str
    fields: tuple[bytes, ...]


def entry_of(stream: str, reply: Any) -> Entry:
    """The entry in a raw reply, `[id, [name, value, ...]]`."""
    entry_id, fields = reply
    return Entry(stream, entry_id.decode("ascii"), tuple(fields or ()))


def text_fields(entry: Entry) -> dict[str, str]:
    """The fields as text. Raises InvalidTask for what is no text, too large, or given twice."""
    size = sum(map(len, entry.fields))
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidTask("entry", f"is {size:,} bytes; the limit is {MAX_PAYLOAD_BYTES:,}")
    found: dict[str, str] = {}
    for name, value in zip(entry.fields[::2], entry.fields[1::2], strict=True):
        try:
            field = name.decode()
        except UnicodeDecodeError:
            raise InvalidTask(_shown(name), "is a field name that is not UTF-8") from None
        if field in found:
            raise InvalidTask(_shown(name), "is given twice")
        try:
            found[field] = value.decode()
        except UnicodeDecodeError as error:
            raise InvalidTask(_shown(name), f"is not UTF-8 (byte {error.start})") from None
    return found


def excerpt(entry: Entry) -> str:
    """The fields as a JSON object for people: bounded, and bytes that are no text escaped."""
    pairs = zip(entry.fields[::2], entry.fields[1::2], strict=False)
    shown = {_shown(name): _shown(value) for name, value in list(pairs)[:SHOWN_FIELDS]}
    left_out = len(entry.fields) // 2 - SHOWN_FIELDS
    if left_out > 0:
        shown["…"] = f"and {left_out} more fields"
    return json.dumps(shown, ensure_ascii=False)


def _shown(data: bytes) -> str:
    # Cut before decoding, as the rest may be a gigabyte; a character takes up to four bytes.
    text = data[: 4 * SHOWN_CHARACTERS].decode(errors="backslashreplace")[:SHOWN_CHARACTERS]
    return text if len(text.encode()) >= len(data) else f"{text}… ({len(data):,} bytes)"


def next_id(entry_id: str) -> str:
    """The smallest id after `entry_id`."""
    ms, _, sequence = entry_id.partition("-")
    return f"{ms}-{int(sequence) + 1}"


def id_order(entry_id: str) -> tuple[int, int]:
    """A key to compare ids by: `9-1` comes before `10-0`."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
