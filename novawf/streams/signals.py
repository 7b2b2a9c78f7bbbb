"""What a wake signal is: the fields of a message, read; and the task it describes. Pure.

Anyone who speaks the Redis protocol may send one: `message`, who sent it, and if they like, work
in the fields of a task. Which tier it has is decided in `wake_signals.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from novawf.clock import iso, parse_iso
from novawf.errors import InvalidSignal, InvalidTask
from novawf.streams.intake import work_spec
from novawf.streams.wake_signals import TIERS, Classification
from novawf.tasks.model import NOT_YET, TaskSpec

TEXT_FIELDS = ("message", "text", "content")
SENDER_FIELDS = ("sender", "from")
WORK_FIELDS = (frozenset(TaskSpec.model_fields) | frozenset(NOT_YET)) - {"priority", "work_type"}
"""Fields of a task that a signal may carry; it has a priority of its own kind."""

ANONYMOUS = "unknown"
"""Stands for a sender that did not say who it is."""

MAX_TEXT_CHARACTERS = 100_000
MAX_NAME_CHARACTERS = 200
TITLE_CHARACTERS = 500
KEPT_FIELDS = 32
KEPT_CHARACTERS = 500
"""Of further fields so many are kept in the task's metadata, and of each so much."""


class Signal(NamedTuple):
    """One message, checked."""

    text: str
    sender: str
    priority: str | None
    """The tier that the message gives itself."""

    kind: str
    """Its `type`, or an empty text."""

    request_id: str
    """Given by a sender that may send the message twice; else empty."""

    work: dict[str, str]
    """Fields of a task, as in the message."""

    other: dict[str, str]
    """What else it carries."""


def parse_signal(fields: Mapping[str, str]) -> Signal:
    """Read the fields of one message. Raises InvalidSignal naming field and rule."""
    for name, value in fields.items():
        if not _is_unicode(name + value):
            raise InvalidSignal(name.encode(errors="replace").decode(), "is not UTF-8 text")
    text_field, text = _one_of(fields, TEXT_FIELDS)
    if not text.strip():
        raise InvalidSignal(text_field, "is missing or empty: say what the signal is about")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise InvalidSignal(
            text_field, f"has {len(text):,} characters; the limit is {MAX_TEXT_CHARACTERS:,}"
        )
    sender_field, sender = _one_of(fields, SENDER_FIELDS)
    priority = fields.get("priority", "").strip().lower() or None
    if priority is not None and priority not in TIERS:
        raise InvalidSignal(
            "priority",
            f"{fields['priority'][:80]!r} is unknown; known are {', '.join(reversed(TIERS))}",
        )
    for name, value in ((sender_field, sender), ("type", fields.get("type", "")),
                        ("request_id", fields.get("request_id", ""))):  # fmt: skip
        if len(value) > MAX_NAME_CHARACTERS:
            raise InvalidSignal(name, f"is longer than {MAX_NAME_CHARACTERS} characters")
    known = {*TEXT_FIELDS, *SENDER_FIELDS, "priority", "type", "request_id"}
    rest = {name: value for name, value in fields.items() if name not in known}
    return Signal(
        text=text,
        sender=sender.strip() or ANONYMOUS,
        priority=priority,
        kind=fields.get("type", ""),
        request_id=fields.get("request_id", ""),
        work={name: value for name, value in rest.items() if name in WORK_FIELDS},
        other={name: value for name, value in rest.items() if name not in WORK_FIELDS},
    )


def message(
    text: str,
    *,
    sender: str,
    request_id: str,
    priority: str | None = None,
    work: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The fields of a message that `parse_signal` reads. Raises InvalidSignal for a bad one.

    `request_id` makes two entries with the same one a single signal. `work`: fields of a task.
    """
    fields = {"message": text, "sender": sender, "request_id": request_id}
    if priority is not None:
        fields["priority"] = priority
    for name, value in (work or {}).items():
        if name not in WORK_FIELDS:
            raise InvalidSignal(name, "is not a field of a task that a signal may carry")
        fields[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    signal = parse_signal(fields)
    try:
        work_spec({"title": "x", **signal.work})
    except InvalidTask as error:
        raise InvalidSignal(error.field, error.rule) from None
    return fields


def task_of(
    signal: Signal,
    found: Classification,
    nova: str | None,
    origin: Mapping[str, str],
    start_after_s: float | None,
) -> TaskSpec:
    """The task that a signal describes; `origin` goes into its metadata.

    `start_after_s` (unix time) is the end of the tier's delay; None for none. An earliest start in
    the message takes its place, and a deadline that comes sooner removes it. Raises InvalidSignal.
    """
    target = signal.work.get("nova")
    if nova and target is not None and target != nova:
        raise InvalidSignal("nova", f"{target[:80]!r} is not {nova}, whose stream this came by")
    title = " ".join(signal.text.split())
    fields = {
        "title": title[:TITLE_CHARACTERS],
        "description": signal.text if len(title) > TITLE_CHARACTERS else "",
        **signal.work,
        "priority": found.tier,
        "work_type": "wake_signal",
        "metadata": json.dumps(_metadata(signal, found, origin), ensure_ascii=False),
    }
    if nova:
        fields["nova"] = nova
    if start_after_s is not None and "at" not in fields and not _ends_before(fields, start_after_s):
        fields["at"] = iso(start_after_s)
    try:
        return work_spec(fields)
    except InvalidTask as error:
        raise InvalidSignal(error.field, error.rule) from None


def has_work(spec: TaskSpec) -> bool:
    """Whether a task says what to run; else it is for the default executor."""
    return spec.implied_executor is not None


def _one_of(fields: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    """The one field of `names` that is there, and its value. Raises InvalidSignal for several."""
    given = [name for name in names if name in fields]
    if len(given) > 1:
        raise InvalidSignal(given[1], f"says the same as {given[0]}: give one of them")
    return (given[0], fields[given[0]]) if given else (names[0], "")


def _is_unicode(text: str) -> bool:
    """Whether it can be written: bytes of a command line that are no text cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _metadata(signal: Signal, found: Classification, origin: Mapping[str, str]) -> dict[str, Any]:
    given: Any = {}
    if "metadata" in signal.work:
        try:
            given = json.loads(signal.work["metadata"])
        except (ValueError, RecursionError) as error:
            raise InvalidSignal("metadata", f"is not JSON: {error}") from None
        if not isinstance(given, dict):
            raise InvalidSignal("metadata", "is not a JSON object")
    metadata = {**given, "sender": signal.sender, **origin, "rule": found.summary()}
    if signal.kind:
        metadata["type"] = signal.kind
    if signal.other:
        metadata["fields"] = {
            name[:KEPT_CHARACTERS]: value[:KEPT_CHARACTERS]
            for name, value in list(signal.other.items())[:KEPT_FIELDS]
        }
    return metadata


def _ends_before(fields: Mapping[str, str], start_s: float) -> bool:
    try:
        return "deadline" in fields and parse_iso(fields["deadline"]) <= start_s
    except ValueError:
        return False  # the task's own check says what is wrong with it
