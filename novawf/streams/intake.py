"""Entries of `nova.work.queue` become tasks: each once, however often it is delivered.

`work_spec` reads an entry and is pure; `WorkIntake` admits what it says. Reading the stream,
acknowledging and quarantine are the service's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from novawf.errors import InvalidTask
from novawf.tasks.model import TaskSpec, parse_json_line

if TYPE_CHECKING:
    from novawf.tasks.queue import TaskQueue

WHOLE: Final = ("task", "json")
"""A single field of this name holds the whole task as a JSON object."""

_NESTED: Final[Mapping[str, type]] = {
    "argv": list, "args": list, "after": list, "env": dict, "metadata": dict,
}  # fmt: skip
"""Fields whose values are JSON strings (architecture §6); all others are given as plain text."""
_NAMES: Final[Mapping[type, str]] = {list: "list", dict: "object"}


class WorkIntake:
    """Takes work from outside into the queue."""

    def __init__(self, queue: TaskQueue) -> None:
        self.queue = queue

    async def accept(
        self, stream: str, entry_id: str, fields: dict[str, str], nova: str | None
    ) -> str:
        """Admit the task of one entry; answers its id.

        The entry's own identity makes it idempotent: a repeat, after a lost reply or by another
        reader, finds the task of the first time. Raises InvalidTask.
        """
        spec = work_spec(fields)
        return (await self.queue.admit(spec, request_id=f"{stream}|{entry_id}")).task_id


def work_spec(fields: Mapping[str, str]) -> TaskSpec:
    """The task that an entry's fields describe. Raises InvalidTask naming field and rule."""
    if not fields:
        raise InvalidTask("entry", "has no fields")
    for name in WHOLE:
        if name in fields:
            if len(fields) > 1:
                raise InvalidTask(name, "holds the whole task: no other field may stand beside it")
            return TaskSpec.parse(parse_json_line(fields[name]))
    return TaskSpec.parse({name: _value(name, text) for name, text in fields.items()})


def _value(name: str, text: str) -> Any:
    """Plain text stays as it is (the model turns it into numbers), nested values are parsed."""
    kind = _NESTED.get(name)
    if kind is None and not (name == "accept" and text.startswith("[")):
        return text
    kind = kind or list
    if name == "after" and not text.lstrip().startswith("["):
        return [text]  # one id may stand alone: it cannot be taken for anything else
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(name, f"is not JSON ({error}); give a JSON {_NAMES[kind]}") from None
    if not isinstance(value, kind):
        raise InvalidTask(name, f"is not a JSON {_NAMES[kind]}")
    return value
