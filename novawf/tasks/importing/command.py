"""A command template and a draft into an argument vector; no shell is ever involved."""

from __future__ import annotations

import re
import shlex

from novawf.errors import InvalidImport
from novawf.tasks.importing.plan import Draft

PLACEHOLDERS = ("title", "key", "owner", "description", "priority", "parent")

_BRACES = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


def render_command(template: str, draft: Draft) -> list[str]:
    """Split `template` as a shell would, then fill `{title}` and its like in each argument.

    A value stays one argument, or part of one, whatever it contains; `{{` and `}}` stand for
    braces. Raises InvalidImport for a template that cannot be split, is empty, or has an unknown
    placeholder.
    """
    try:
        arguments = shlex.split(template)
    except ValueError as error:
        raise InvalidImport(f"command template {template!r}: {str(error).lower()}") from None
    if not arguments:
        raise InvalidImport("command template is empty: give a program and its arguments")
    values = {
        "title": draft.title,
        "key": draft.key,
        "owner": draft.owner or "",
        "description": draft.description,
        "priority": draft.priority,
        "parent": str(draft.metadata.get("parent", "")),
    }

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        if name not in values:
            known = ", ".join(f"{{{known}}}" for known in PLACEHOLDERS)
            raise InvalidImport(
                f"command template: placeholder {{{name}}} is unknown; known are {known} "
                "(write {{ and }} for braces)"
            )
        return values[name]

    return [_BRACES.sub(fill, argument) for argument in arguments]
