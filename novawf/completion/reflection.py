"""What a Nova learns from a completed task: rules over the evidence, and nothing made up.

Each finding is a sign (a fixed word, to be counted) with a lesson and, where it suggests one, an
improvement of the process or an application of what was learned. Which completions are reflected
on is decided by the task's id, so that a Nova that resumes after a crash decides the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from novawf.completion.evidence import Evidence

SLOW = 1.5
FAST = 0.5
"""Shares of the estimate from which on, and up to which, it was wrong enough to say so."""

WORTH_AN_ESTIMATE_S = 60.0
LONG_WAIT_S = {"critical": 1.0, "high": 30.0, "medium": 300.0, "low": 1800.0, "background": 3600.0}
"""A longer wait than its tier's head start in the queue is worth a word."""

LOUD_BYTES = 1 << 20
ERROR_CHARACTERS = 160


class Finding(NamedTuple):
    """One thing learned; an empty text says nothing."""

    sign: str
    lesson: str
    improvement: str = ""
    application: str = ""


class Reflection(NamedTuple):
    """What an insight record of a completed task says; texts joined by `; `."""

    signs: str
    """Words to count, comma separated."""
    lessons: str
    improvements: str
    skill: str
    applications: str


def reflects(nova: str, task_id: str, share: float) -> bool:
    """Whether this completion is among the `share` (0 to 1) that this Nova reflects on."""
    digest = hashlib.blake2b(f"{nova}|{task_id}".encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def reflect(evidence: Evidence) -> Reflection:
    """The lessons of one task."""
    findings = [finding for rule in RULES if (finding := rule(evidence)) is not None]
    skill = evidence.skill
    if skill and evidence.duration_s is not None:
        skill += f" in {span(evidence.duration_s)}"
    return Reflection(
        signs=",".join(finding.sign for finding in findings),
        lessons=_joined(finding.lesson for finding in findings),
        improvements=_joined(finding.improvement for finding in findings),
        skill=skill,
        applications=_joined(finding.application for finding in findings),
    )


def _attempts(evidence: Evidence) -> Finding:
    if evidence.attempts <= 1:
        return Finding("first_attempt", "done at the first attempt")
    errors = [error[:ERROR_CHARACTERS].replace(";", ",") for error in evidence.errors if error]
    lesson = f"took {evidence.attempts} attempts"
    if not errors:
        return Finding("retried", lesson, "find out what made the earlier attempts fail")
    lesson += f"; the last failure was: {errors[-1]}"
    if len(errors) > 1 and len(set(errors)) == 1:
        advice = "the same failure came each time: mend its cause, repeating does not"
        return Finding("same_failure", lesson, advice)
    return Finding("retried", lesson, f"guard against: {errors[-1]}")


def _estimate(evidence: Evidence) -> Finding | None:
    took_s, estimated_s = evidence.duration_s, evidence.estimated_s
    if took_s is None:
        return None
    again = f"expect {span(took_s)} next time"
    if estimated_s is None:
        if took_s < WORTH_AN_ESTIMATE_S:
            return None
        return Finding("no_estimate", f"took {span(took_s)}, with no estimate", "", again)
    compared = f"took {span(took_s)} where {span(estimated_s)} were expected"
    if took_s >= SLOW * estimated_s:
        return Finding("slower", compared, "estimate it higher, or split it", again)
    if took_s <= FAST * estimated_s:
        return Finding("faster", compared, "", again)
    return Finding("as_estimated", "took about as long as expected")


def _wait(evidence: Evidence) -> Finding | None:
    waited_s = evidence.waited_s
    if waited_s is None or waited_s <= LONG_WAIT_S.get(evidence.priority, 300.0):
        return None
    lesson = f"waited {span(waited_s)} for a Nova"
    return Finding("waited", lesson, "more Novas would start such work sooner")


def _output(evidence: Evidence) -> Finding | None:
    if evidence.output_bytes < LOUD_BYTES:
        return None
    lesson = f"wrote {evidence.output_bytes / 2**20:.0f} MiB of output"
    return Finding("loud", lesson, "write results to a file and only their end to the output")


RULES: tuple[Callable[[Evidence], Finding | None], ...] = (_attempts, _estimate, _wait, _output)
"""What is looked at, in this order."""


def span(seconds: float) -> str:
    """A length of time for people: `340 ms`, `12 s`, `3 min`, `2.5 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(filter(None, texts))
