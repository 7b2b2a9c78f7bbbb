"""What a provider's answer says about its own limits, and what the fleet makes of it. Pure.

`read` takes what a job handed over (status, headers, plain figures) and never raises: an answer
that cannot be understood is no advice. `advise` decides how much slower to go.

Headers: `Retry-After` (RFC 9110: seconds or a date), `anthropic-ratelimit-KIND-{limit,remaining,
reset}` (RFC 3339 times) and `x-ratelimit-{limit,remaining,reset}-KIND` (durations such as `6m0s`),
as their providers documented them in 2025.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from novawf.clock import parse_iso
from novawf.limits.request import SLOW_DOWN, ApiAnswer

NO_ADVICE = -1
OWN_BACKOFF = -2

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?")
_ANTHROPIC = re.compile(r"anthropic-ratelimit-([a-z-]+)-(limit|remaining|reset)")
_OPENAI = re.compile(r"x-ratelimit-(limit|remaining|reset)-([a-z-]+)")
_UNIX_S = 1e9
"""A plain number from here on is a unix time, below it a duration."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What the release script is told. Milliseconds."""

    block_ms: int = NO_ADVICE
    """How long the limit is blocked; NO_ADVICE; OWN_BACKOFF: as long as our own doubling says."""
    gap_ms: int = NO_ADVICE
    """Time between two grants; 0 ends the spreading, NO_ADVICE leaves it."""
    gap_for_ms: int = 0
    """How long the gap is kept."""


class AdviceRules(NamedTuple):
    """What of the settings counts here."""

    cap_ms: int = 3_600_000
    utilization: float = 0.8


class _Quota(NamedTuple):
    """One of the provider's limits, as its headers tell of it."""

    kind: str
    used: float
    remaining: float
    resets_in_s: float


def read(ok: bool, said: Mapping[str, Any], wall_s: float) -> ApiAnswer:
    """The answer that a job told of: `status`, `headers`, `retry_after_s`, `utilization`,
    `resets_at` (unix s or RFC 3339), `cost_usd`, `tokens`. Plain figures win over headers.

    `wall_s` is unix time now, for headers that give a date.
    """
    headers = _lower(said.get("headers"))
    quota = _fullest(headers, wall_s)
    retry_after_s = _number(said.get("retry_after_s"))
    if retry_after_s is None:
        retry_after_s = _retry_after(headers.get("retry-after", ""), wall_s)
    utilization = _number(said.get("utilization"))
    resets_in_s = _time(said.get("resets_at"), wall_s)
    remaining = None
    if utilization is None and quota is not None:
        utilization = quota.used
        remaining = int(quota.remaining) if quota.kind == "requests" else None
        resets_in_s = quota.resets_in_s if resets_in_s is None else resets_in_s
    status, tokens, cost_usd = said.get("status"), said.get("tokens"), said.get("cost_usd")
    return ApiAnswer(
        ok=ok,
        status=status if isinstance(status, int) and 100 <= status <= 599 else None,
        retry_after_s=retry_after_s,
        utilization=None if utilization is None else min(utilization, 1.0),
        remaining=remaining,
        resets_in_s=resets_in_s,
        cost_usd=_number(cost_usd),
        tokens=tokens if isinstance(tokens, int) and tokens >= 0 else None,
    )


def advise(answer: ApiAnswer, per_minute: int, rules: AdviceRules) -> Advice:
    """How much slower to go. `per_minute` is what the limit itself would allow.

    429 and 529 block until Retry-After, else until the reset of a limit that is used up, else for
    an own back-off. A `Retry-After` with any other refusal is obeyed too. From the utilization on,
    what is left is spread evenly until the reset. Nothing is obeyed for longer than the cap.
    """
    block_ms = NO_ADVICE
    went_wrong = not answer.ok or (answer.status or 0) >= 400
    if answer.retry_after_s is not None and went_wrong:
        block_ms = _ms(answer.retry_after_s, rules.cap_ms)
    elif answer.status in SLOW_DOWN:
        used_up = answer.utilization is not None and answer.utilization >= 1
        block_ms = (
            _ms(answer.resets_in_s, rules.cap_ms)
            if used_up and answer.resets_in_s is not None
            else OWN_BACKOFF
        )
    if answer.utilization is None:
        return Advice(block_ms)
    if answer.utilization < rules.utilization or not answer.resets_in_s:
        return Advice(block_ms, 0)
    left_ms = _ms(answer.resets_in_s, rules.cap_ms)
    left = answer.remaining
    if left is None:  # tokens, or a share alone: that share of what we would send until then
        left = math.floor((1 - answer.utilization) * per_minute * left_ms / 60_000)
    gap_ms = left_ms if left <= 0 else max(1, left_ms // left)
    return Advice(block_ms, gap_ms, left_ms)


def _fullest(headers: Mapping[str, str], wall_s: float) -> _Quota | None:
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if match := _ANTHROPIC.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = value
        elif match := _OPENAI.fullmatch(name):
            found.setdefault(match[2], {})[match[1]] = value
    quotas = [_quota(kind, parts, wall_s) for kind, parts in sorted(found.items())]
    known = [quota for quota in quotas if quota is not None]
    return max(known, key=lambda quota: quota.used, default=None)


def _quota(kind: str, parts: Mapping[str, str], wall_s: float) -> _Quota | None:
    limit, remaining = _number(parts.get("limit")), _number(parts.get("remaining"))
    resets_in_s = _time(parts.get("reset"), wall_s)
    if not limit or remaining is None or resets_in_s is None:
        return None
    return _Quota(kind, max(0.0, 1 - remaining / limit), remaining, resets_in_s)


def _retry_after(text: str, wall_s: float) -> float | None:
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        return _number(max(0.0, parsedate_to_datetime(text).timestamp() - wall_s))
    except (ValueError, TypeError, OverflowError):
        return None


def _time(value: Any, wall_s: float) -> float | None:
    """Seconds from now of a unix time, an RFC 3339 time or a duration."""
    if isinstance(value, int | float):
        at_s = _number(value)
        return None if at_s is None else max(0.0, at_s - wall_s)
    if not isinstance(value, str) or not value:
        return None
    if (plain := _number(value)) is not None:
        return plain if plain < _UNIX_S else max(0.0, plain - wall_s)
    if (match := _DURATION.fullmatch(value)) and any(match.groups()):
        days, hours, minutes, seconds, ms = (float(part or 0) for part in match.groups())
        return _number(days * 86400 + hours * 3600 + minutes * 60 + seconds + ms / 1000)
    try:
        return max(0.0, parse_iso(value) - wall_s)
    except (ValueError, OverflowError):
        return None


def _number(value: Any) -> float | None:
    """A finite number that is not negative."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _lower(headers: Any) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        return {}
    return {str(name).lower(): str(value).strip() for name, value in headers.items()}


def _ms(seconds: float, cap_ms: int) -> int:
    return math.ceil(min(float(cap_ms), seconds * 1000))
