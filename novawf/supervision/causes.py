"""Why a child of the supervisor ended: one word for policy and metrics, one line for people. Pure.

What became of a *task* is said by its executor (`executors.base.Cause`).
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Cause(StrEnum):
    """Label of `novawf_restarts_total`."""

    ENDED = "ended"
    """By itself, without an error."""
    CRASH = "crash"
    """By an error of its own, or by nobody knows what."""
    SIGNAL = "signal"
    """By a signal that we did not send."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel, or Ray, ended it to get memory back."""
    HUNG = "hung"
    """It lived and did not move, so we ended it."""
    STORE = "store"
    """It could not do without the store."""
    FENCED = "fenced"
    """Its name has a newer owner."""
    USER = "user"
    """A person ordered it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an end. Everything may be unknown."""

    error: str = ""
    """The exception that its last call ended with, as `Type: text`; '' when its process died."""
    error_kind: Literal["", "store", "fenced"] = ""
    signal: int | None = None
    exit_code: int | None = None
    out_of_memory: bool = False
    """The kernel counted a kill for want of memory meanwhile, or Ray says that it did one."""
    ordered: Literal["", "hung", "user"] = ""
    """Why we ended it ourselves."""
    fault: str = ""
    """What was wrong with one that hung."""


COUNTED = frozenset(Cause) - {Cause.STORE, Cause.USER}
"""Causes that count for restart intensity: a store that is away is not the child's fault."""


def cause_of(evidence: Evidence) -> tuple[Cause, str]:
    """The cause, and what to say of it; the first that holds, from what we did to what we guess."""
    killed_for_memory = evidence.out_of_memory and evidence.signal in (None, signal.SIGKILL)
    known = (
        (evidence.ordered == "hung", Cause.HUNG, _hung(evidence.fault)),
        (evidence.ordered == "user", Cause.USER, "ended by order"),
        (evidence.error_kind == "store", Cause.STORE, evidence.error),
        (evidence.error_kind == "fenced", Cause.FENCED, "its name has a newer owner"),
        (bool(evidence.error), Cause.CRASH, evidence.error),
        (killed_for_memory, Cause.OUT_OF_MEMORY, "killed for want of memory"),
        (
            evidence.signal is not None,
            Cause.SIGNAL,
            f"killed by {_signal_name(evidence.signal or 0)}",
        ),
        (
            evidence.exit_code is not None,
            Cause.CRASH,
            f"its process ended with exit code {evidence.exit_code}",
        ),
        (True, Cause.CRASH, "process died"),
    )
    return next((cause, said) for holds, cause, said in known if holds)


def _hung(fault: str) -> str:
    return f"it hung ({fault}) and was ended" if fault else "it hung and was ended"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
