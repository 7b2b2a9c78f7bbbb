"""The rules for settings that name hooks: Claude Code's `settings.json`, `hooks.json` of codex and
gemini. A document in, findings and the commands it names out; it reads no file."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, NamedTuple

from novawf.hooks.findings import Finding

EVENTS = frozenset(
    [
        "PreToolUse",
        "PostToolUse",
        "PostToolUseFailure",
        "PermissionRequest",
        "PermissionDenied",
        "Notification",
        "UserPromptSubmit",
        "UserPromptExpansion",
        "Stop",
        "StopFailure",
        "SubagentStart",
        "SubagentStop",
        "PreCompact",
        "PostCompact",
        "SessionStart",
        "SessionEnd",
        "Setup",
        "TaskCreated",
        "TaskCompleted",
        "TeammateIdle",
        "InstructionsLoaded",
        "ConfigChange",
        "CwdChanged",
        "FileChanged",
        "WorktreeCreate",
        "WorktreeRemove",
        "Elicitation",
        "ElicitationResult",
        "BeforeTool",
        "AfterTool",
        "BeforeAgent",
        "AfterAgent",
        "BeforeModel",
        "AfterModel",
        "BeforeToolSelection",
        "PreCompress",
    ]
)
"""Events of Claude Code and codex, then those that gemini calls otherwise."""

_IN_MILLISECONDS = frozenset(
    [
        "BeforeTool",
        "AfterTool",
        "BeforeAgent",
        "AfterAgent",
        "BeforeModel",
        "AfterModel",
        "BeforeToolSelection",
        "PreCompress",
    ]
)
_TYPES = frozenset({"command", "prompt", "agent", "http", "mcp_tool", "function"})
LONGEST_S = 600
"""A time-out beyond this is taken for a slip, milliseconds for seconds perhaps."""


class HookCommand(NamedTuple):
    """A command line that settings name, for one event."""

    event: str
    command: str
    line: int


class Named(NamedTuple):
    """What a document of settings gave."""

    findings: list[Finding]
    commands: list[HookCommand]


def check_settings(path: str, text: str) -> Named:
    """Findings in a settings file, and the commands it has run."""
    try:
        document = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        said = f"this is no JSON: {error}".replace("\n", " ")
        return Named([Finding(path, line, "settings-json", said)], [])
    reading = _Reading(path, text)
    if not isinstance(document, dict):
        reading.shape("settings are an object with `hooks` in it", "")
    elif "hooks" in document:
        reading.hooks(document["hooks"])
    return Named(reading.findings, reading.commands)


class _Reading:
    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.splitlines()
        self._seen: dict[str, int] = {}
        self.findings: list[Finding] = []
        self.commands: list[HookCommand] = []

    def shape(self, message: str, near: str) -> None:
        """Something is not where the agent looks for it."""
        line = self._line_of(near, again=False)
        self.findings.append(Finding(self._path, line, "settings-shape", message))

    def hooks(self, hooks: Any) -> None:
        """`{event: [{matcher, hooks: [{type, command}]}]}`."""
        if not isinstance(hooks, dict):
            self.shape("`hooks` is an object: event → list of matchers", '"hooks"')
            return
        for event, matchers in hooks.items():
            if event.startswith(("$", "_")) or event in ("disabled", "enabled", "notifications"):
                continue
            if event not in EVENTS:
                self._unknown(event)
            if not isinstance(matchers, list):
                self.shape(f"`{event}` is a list of matchers", f'"{event}"')
                continue
            for matcher in matchers:
                self._matcher(event, matcher)

    def _unknown(self, event: str) -> None:
        near = get_close_matches(event, sorted(EVENTS), n=1, cutoff=0.6)
        same = [known for known in EVENTS if known.lower() == event.lower().replace("_", "")]
        hint = f": did you mean {(same or near)[0]}?" if same or near else ""
        line = self._line_of(f'"{event}"', again=False)
        self.findings.append(
            Finding(self._path, line, "unknown-event", f"there is no event {event}{hint}")
        )

    def _matcher(self, event: str, matcher: Any) -> None:
        if not isinstance(matcher, dict):
            self.shape(f"a matcher of `{event}` is an object with `hooks`", f'"{event}"')
            return
        if "hooks" not in matcher:
            if "command" in matcher:
                self.shape(
                    f"`{event}`: the command stands beside the matcher; it belongs into `hooks`: "
                    "as it is, it never runs",
                    '"command":',
                )
            else:
                self.shape(f"a matcher of `{event}` has no `hooks`", f'"{event}"')
            return
        hooks = matcher["hooks"]
        for hook in hooks if isinstance(hooks, list) else [None]:
            self._hook(event, hook)

    def _hook(self, event: str, hook: Any) -> None:
        if not isinstance(hook, dict):
            self.shape(f"`hooks` of `{event}` is a list of objects", f'"{event}"')
            return
        kind = hook.get("type")
        if kind not in _TYPES:
            said = "has no `type`" if kind is None else f"has the unknown type {kind!r}"
            self.shape(f"a hook of `{event}` {said}; it is `command`", f'"{event}"')
            return
        self._timeout(event, hook)
        if kind != "command":
            return
        command = hook.get("command", hook.get("bash"))
        if not isinstance(command, str) or not command.strip():
            self.shape(f"a hook of `{event}` has no `command`", f'"{event}"')
            return
        line = self._line_of(json.dumps(command, ensure_ascii=False), again=True)
        self.commands.append(HookCommand(event, command, line))

    def _timeout(self, event: str, hook: dict[str, Any]) -> None:
        given = hook.get("timeout")
        if not isinstance(given, int | float) or isinstance(given, bool):
            return
        seconds = given / 1000 if event in _IN_MILLISECONDS or "/.gemini/" in self._path else given
        if seconds > LONGEST_S:
            line = self._line_of('"timeout"', again=True)
            self.findings.append(
                Finding(
                    self._path,
                    line,
                    "timeout-long",
                    f"a hook of `{event}` may take {seconds:,.0f} s",
                )
            )

    def _line_of(self, text: str, *, again: bool) -> int:
        """The line on which a text stands; the next one each time where it comes again."""
        if not text:
            return 0
        start = self._seen.get(text, 0) if again else 0
        for number, line in enumerate(self._lines[start:], start=start + 1):
            if text in line:
                self._seen[text] = number
                return number
        return self._seen.get(text, 0)
