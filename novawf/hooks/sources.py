"""What the check of a hook is given: one text, and what is known of its place. Pure."""

from __future__ import annotations

import os.path
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from novawf.hooks.findings import Finding

DENIES = re.compile(
    r"\b(block(ed|ing|s)?|den(y|ied|ies)|refus(e|ed|es|ing)|forbid(den|s)?|not allowed"
    r"|reject(ed|s)?|disallow(ed)?|prohibit(ed)?|dangerous|must not|not permitted)\b",
    re.IGNORECASE,
)
"""Words of a hook that turns something down."""
RESTARTS = re.compile(
    r"\b(re-?start|re-?launch|respawn|(new|fresh|next) session|start (again|over|anew))",
    re.IGNORECASE,
)
"""Words of a hook that takes exit code 2 for `start again`."""

GATES = frozenset(
    {"PreToolUse", "UserPromptSubmit", "Stop", "SubagentStop", "PermissionRequest", "BeforeTool"}
)
"""Events whose hooks can turn something down."""
STOPS = frozenset({"Stop", "SubagentStop"})

_EVENT_NAMES = (
    (re.compile(r"(^|[^a-z])(sub-?_?agent[-_]?stop|stop)([^a-z]|$)", re.IGNORECASE), "Stop"),
    (re.compile(r"pre[-_]?tool([-_]?use)?", re.IGNORECASE), "PreToolUse"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """A text to check. Paths are absolute; '' where there is none."""

    path: str
    text: str
    event: str = ""
    """The event it is run at, where that is known."""
    project: str = ""
    home: str = ""

    @property
    def gate(self) -> bool:
        """Whether it can turn something down, as far as can be told."""
        if self.event:
            return self.event in GATES
        return "tool_input" in self.text or "tool_name" in self.text

    @property
    def stops(self) -> bool:
        """Whether it runs when an agent stops."""
        return self.event in STOPS


class Call(NamedTuple):
    """A script that another one runs or reads."""

    path: str
    line: int
    direct: bool
    """Run by itself, not through an interpreter that is named."""


class Checked(NamedTuple):
    """What one text gave."""

    findings: list[Finding]
    calls: list[Call]


def dispatches(text: str, arguments: Sequence[str]) -> bool:
    """Whether a script that calls itself with these asks for a part of itself.

    `"$0" worker &`, where `worker` is a word that it looks for. How often it does so is for the
    guard to see.
    """
    first = arguments[0] if arguments else ""
    if len(first) < 2 or "$" in first:
        return False
    return len(re.findall(rf"(?<![\w-]){re.escape(first)}(?![\w-])", text)) > 1


def event_of(path: str) -> str:
    """The event that a file's name tells of; '' for none."""
    name = os.path.basename(path)  # noqa: PTH119 - text, no path of ours
    return next((event for pattern, event in _EVENT_NAMES if pattern.search(name)), "")
