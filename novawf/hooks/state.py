"""What is remembered of one hook, and what follows from it: whether it may run now. Pure.

A hook is `on` or `shut off`::

    on        + execution within the limit      → on, it runs
    on        + execution beyond the limit      → shut off
    on        + sign of running away            → shut off
    shut off  + execution before the cooldown's end → shut off, refused
    shut off  + execution after it              → on, with a new count

Times are milliseconds since boot, with the boot's id: no clock that is set reaches them. What is
remembered of another boot says nothing of when, so a hook that was shut off then is shut off for
a whole cooldown from the first look on, and executions are forgotten.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from novawf.errors import CorruptState

VERSION = 1

MOST_EXECUTIONS = 10
WINDOW_MS = 60_000
"""More than `MOST_EXECUTIONS` in this time shut a hook off (spec §5.3)."""
COOLDOWN_S = 300.0
"""For so long (spec §5.3)."""


class ShutOff(NamedTuple):
    """That a hook is shut off."""

    id: int
    """Counted per hook: 1 is its first."""
    kind: str
    """`rate`, `check`, `agent`, `loop` or `recursion`."""
    reason: str
    """One line for people."""
    at: str
    """Wall time, ISO 8601."""
    until_ms: int
    cooldown_ms: int
    told: bool = False
    """Whether its alert was written."""


class Checked(NamedTuple):
    """What the check said of a hook's files as they were."""

    key: str
    runaway: str
    """Why it is not run; '' when nothing speaks against it."""


class HookState(NamedTuple):
    """All that is remembered of one hook."""

    name: str
    nova: str = ""
    boot: str = ""
    runs: tuple[int, ...] = ()
    """When it was executed, within the window."""
    executions: int = 0
    shut_offs: int = 0
    shut: ShutOff | None = None
    last: ShutOff | None = None
    """The shut-off before, once it is over."""
    checked: Checked | None = None
    seen_at: str = ""
    """Wall time of its last execution or refusal, ISO 8601."""


class Verdict(NamedTuple):
    """Whether it may run."""

    allowed: bool
    reason: str = ""
    over_limit: bool = False


def on_this_boot(state: HookState, now_ms: int, boot: str) -> HookState:
    """The state, in the times of this boot."""
    if state.boot == boot:
        return state
    shut = state.shut
    if shut is not None:
        shut = shut._replace(until_ms=now_ms + shut.cooldown_ms)
    return state._replace(boot=boot, runs=(), shut=shut)


def recovered(state: HookState, now_ms: int) -> HookState:
    """The state, with a shut-off that is over taken away."""
    if state.shut is None or now_ms < state.shut.until_ms:
        return state
    return state._replace(shut=None, last=state.shut, runs=())


def admit(state: HookState, now_ms: int, most: int = MOST_EXECUTIONS) -> tuple[HookState, Verdict]:
    """One more execution is asked for. When it is over the limit, `shut_off` has to follow."""
    if state.shut is not None:
        left_s = max(1, round((state.shut.until_ms - now_ms) / 1000))
        return state, Verdict(False, f"shut off for {left_s} s more: {state.shut.reason}")
    runs = tuple(at for at in state.runs if now_ms - WINDOW_MS < at <= now_ms)
    if len(runs) >= most:
        reason = f"executed more than {most} times in {WINDOW_MS // 1000} s"
        return state._replace(runs=runs), Verdict(False, reason, over_limit=True)
    return state._replace(runs=(*runs, now_ms), executions=state.executions + 1), Verdict(True)


def shut_off(
    state: HookState, kind: str, reason: str, *, now_ms: int, at: str, cooldown_s: float
) -> HookState:
    """Shut it off. One that is shut off already stays so, for the reason it has."""
    if state.shut is not None:
        return state
    number, cooldown_ms = state.shut_offs + 1, int(cooldown_s * 1000)
    shut = ShutOff(number, kind, reason, at, now_ms + cooldown_ms, cooldown_ms)
    return state._replace(shut=shut, shut_offs=number, runs=())


def to_text(state: HookState) -> str:
    """As the file has it."""
    document = state._asdict() | {"version": VERSION}
    for name in ("shut", "last", "checked"):
        value = document[name]
        document[name] = None if value is None else value._asdict()
    return json.dumps(document) + "\n"


def from_text(text: str) -> HookState:
    """Raises CorruptState for what `to_text` has not written, or a later version has."""
    try:
        document = json.loads(text)
        version = document.pop("version")
        if version != VERSION:
            raise CorruptState(f"it was written by another version ({version!r})")
        for name, kind in (("shut", ShutOff), ("last", ShutOff), ("checked", Checked)):
            document[name] = None if document[name] is None else kind(**document[name])
        document["runs"] = tuple(document["runs"])
        state = HookState(**document)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptState(f"it is not what we wrote ({type(error).__name__})") from None
    return _sound(state)


def _sound(state: HookState) -> HookState:
    texts: tuple[Any, ...] = (state.name, state.nova, state.boot, state.seen_at)
    numbers: tuple[Any, ...] = (*state.runs, state.executions, state.shut_offs)
    for shut in (state.shut, state.last):
        if shut is not None:
            texts += (shut.kind, shut.reason, shut.at)
            numbers += (shut.id, shut.until_ms, shut.cooldown_ms)
    if state.checked is not None:
        texts += tuple(state.checked)
    if not all(isinstance(text, str) for text in texts):
        raise CorruptState("it is not what we wrote (a text is none)")
    if not all(type(number) is int for number in numbers):
        raise CorruptState("it is not what we wrote (a number is none)")
    return state
