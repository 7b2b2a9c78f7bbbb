"""One record of the audit trail, and the arithmetic of its chain. Values in, values out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from novawf.telemetry.masking import mask, mask_json

GENESIS: Final = "0" * 64
"""What the first record of all links to."""
TEXT_CHARACTERS: Final = 2_000
STATE_CHARACTERS: Final = 8_000
"""Longest text, and longest `before` or `after` as JSON; what is longer is cut, and says so."""
TORN: Final = "audit.torn"
"""The record that sets a torn line aside; its `before` names that line's bytes and their hash."""
BROKEN: Final = "audit.broken"
PRUNED: Final = "audit.pruned"

FIELDS: Final = (
    "sequence", "ts", "who", "pid", "action", "target", "before", "after", "why", "prev", "hash",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Link:
    """Where a chain has got to."""

    sequence: int
    hash: str


BEGINNING: Final = Link(0, GENESIS)


def content(
    *, ts: str, who: str, pid: int, action: str, target: Any, before: Any, after: Any, why: str
) -> dict[str, Any]:
    """What a record says, without its place in the chain: masked, bounded, fit for JSON."""
    return {
        "ts": ts,
        "who": _text(who),
        "pid": pid,
        "action": _text(action),
        "target": _state(target),
        "before": _state(before),
        "after": _state(after),
        "why": _text(why),
    }


def sealed(said: Mapping[str, Any], after: Link) -> tuple[bytes, Link]:
    """The line of a record that follows `after`, and the link to the next one."""
    document = {"sequence": after.sequence + 1, **said, "prev": after.hash}
    digest = digest_of(document)
    line = json.dumps({**document, "hash": digest}, ensure_ascii=False, separators=(",", ":"))
    return line.encode() + b"\n", Link(after.sequence + 1, digest)


def digest_of(document: Mapping[str, Any]) -> str:
    """SHA-256 over the canonical JSON of all but the hash: sorted keys, no spaces, UTF-8."""
    rest = {name: value for name, value in document.items() if name != "hash"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """A line as a record, whatever its hash; None for what is none."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not all(name in document for name in FIELDS):
        return None
    whole = type(document["sequence"]) is int and isinstance(document["action"], str)
    return document if whole and isinstance(document["hash"], str) else None


def link_of(line: bytes) -> Link | None:
    """The link that a whole and true record gives to the next; None for any other line."""
    document = parse(line)
    if document is None or digest_of(document) != document["hash"]:
        return None
    return Link(document["sequence"], document["hash"])


def torn_state(junk: bytes) -> dict[str, Any]:
    """What the record says that sets `junk` aside."""
    return {"bytes": len(junk), "sha256": hashlib.sha256(junk).hexdigest()}


def _text(value: Any) -> str:
    # Lone surrogates come from bytes in argv that are no UTF-8; they cannot be written as it.
    text = mask(str(value)).encode("utf-8", "backslashreplace").decode()
    if len(text) <= TEXT_CHARACTERS:
        return text
    return f"{text[:TEXT_CHARACTERS]}… ({len(text):,} characters)"


def _state(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _text(value)
    # Through JSON, so that what is hashed is what will be read: keys are texts, tuples are lists.
    text = json.dumps(mask_json(value), default=str, skipkeys=True, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()
    if len(text) <= STATE_CHARACTERS:
        return json.loads(text)
    return f"{text[:STATE_CHARACTERS]}… ({len(text):,} characters)"
