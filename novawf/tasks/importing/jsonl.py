"""`.jsonl`: one task a line, as a JSON object of raw task fields."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from novawf.errors import InvalidImport
from novawf.tasks.importing.plan import (
    Draft,
    ImportPlan,
    Skipped,
    is_text,
    make_plan,
    numbered_lines,
)

_JSON_NAMES = {"list": "array", "str": "string", "int": "number", "float": "number"}


def parse_jsonl(text: str, source: str, skip_bad: bool = False) -> ImportPlan:
    """One draft for each line that is not blank.

    The first broken line refuses the whole file with InvalidImport; with `skip_bad` broken lines
    are reported as skipped. `after` in a line names tasks that exist already, by their id: it
    stays in `fields`.
    """
    drafts: list[Draft] = []
    skipped: list[Skipped] = []
    for number, line in numbered_lines(text):
        if not line.strip():
            continue
        try:
            drafts.append(_draft(_object(line), number))
        except ValueError as fault:
            if not skip_bad:
                raise InvalidImport(f"{source}:{number}: {fault}") from None
            skipped.append(Skipped(number, line[:200], str(fault)))
    return make_plan(drafts, skipped, source)


def _draft(fields: dict[str, Any], number: int) -> Draft:
    def text(name: str, default: str) -> str:
        value = fields.get(name)
        return value if isinstance(value, str) else default

    return Draft(
        key=f"line-{number}",
        title=text("title", ""),
        line=number,
        description=text("description", ""),
        priority=text("priority", "medium"),
        fields=fields,
    )


def _object(line: str) -> dict[str, Any]:
    """The JSON object on one line. Raises ValueError with the fault in words."""
    if not is_text(line):
        raise ValueError("is not UTF-8 text")
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        fault = error.msg[0].lower() + error.msg[1:]
        raise ValueError(f"is not JSON: {fault} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(value, dict):
        kind = _JSON_NAMES.get(type(value).__name__, "literal")
        raise ValueError(f"is a JSON {kind}, not an object with the fields of a task")
    if r"\ud" in line.lower() and not is_text(json.dumps(value, ensure_ascii=False)):
        raise ValueError("holds half a surrogate pair, which is not text")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"is not JSON: {name} is not a JSON value")
