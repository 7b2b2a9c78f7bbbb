"""Which tier a wake signal has, and why (spec §3): a pure function of text, sender and context.

A pattern gives the text a tier. The sender's weight and the circumstances (hour, repetition) move
it up or down, and a loaded machine lowers what is low already. Each step leaves a line in the
answer, so that `novawf classify` can say which rule decided. What becomes of a signal is not
decided here (`signal_intake.py`), and neither the clock nor the load is read here.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from novawf.streams.wake_config import WakeSettings, compile_pattern, hours_of

TIERS = ("background", "low", "medium", "high", "critical")
"""The tiers by level: a step of escalation is one place."""

SUGGESTED = frozenset({"low", "background"})
"""Tiers whose signals are suggestions first; the others become tasks."""

ORDER = ("critical", "high", "background", "low", "medium")
"""In which order the tiers' patterns are tried: what is urgent first, then the special kinds of
work, then work as such, whose words ("update", "add") occur in most texts."""

_SUBJECT = (
    r"\b(system|server|service|database|db|store|cluster|fleet|api|site|website|network|node|"
    r"host|disk|production|prod|backup|queue)s?\b"
)
_TROUBLE = (
    r"\b(issue|problem|error|bug|incident|regression|alert|failure|failing|broken|degraded|slow|"
    r"down|timeout)s?\b"
)

BUILTIN: dict[str, tuple[str, ...]] = {
    "critical": (
        r"\bemergenc(y|ies)\b",
        _SUBJECT + r".{0,30}\b(down|offline|unreachable|not responding|crash(ed|es|ing)?|"
        r"fail(ed|s|ing|ures?)|dead|corrupt(ed|ion)?)\b",
        r"\b(outage|data ?loss|data corruption|disk full|out of (memory|disk|space))\b",
        r"\bcritical\b.{0,20}\b(failures?|errors?|alerts?|incidents?|bugs?|issues?|problems?)\b",
        r"\b(security|data) breach\b|\bunder attack\b|\bcompromised\b",
    ),
    "high": (
        r"\bprod(uction)?\b.{0,80}" + _TROUBLE,
        _TROUBLE + r".{0,80}\bprod(uction)?\b",
        r"\bsecurity\b.{0,40}\b(patch(es)?|fix(es)?|updates?|issues?|holes?|advisor(y|ies)|bugs?)\b",
        r"\bCVE-\d{4}-\d{4,7}\b|\bvulnerabilit(y|ies)\b",
        r"\burgent(ly)?\b|\bhot-?fix\b|\basap\b|\bimmediately\b",
    ),
    "medium": (
        r"\b(implement|build|add|create|write|fix|deploy|release|migrate|test|review|update|"
        r"upgrade|analy[sz]e|investigate|integrate|prepare|process|run|check|configure|install|"
        r"import|export|generate|report|task|work)\b",
    ),
    "low": (
        r"\bsuggest(s|ed|ions?)?\b|\bideas?\b|\bpropos(e|al|als)\b|\bwish(es)?\b",
        r"\b(maybe|perhaps|nice to have|would be nice|consider|some ?day|eventually|might|"
        r"no hurry|no rush|when you have time)\b",
    ),
    "background": (
        r"\bdocumentation\b|\bdocs?\b|\bdocument the\b|\breadme\b|\bchangelog\b|\btypos?\b",
        r"\b(maintenance|housekeeping|clean(ing)?[ -]?up|tidy|archive|rotate|vacuum|routine|"
        r"defragment|compact|prune)\b",
    ),
}
"""What comes with NOVAWF, from the table in spec §3."""


class Rules(NamedTuple):
    """`[wake]`, ready for use: patterns compiled, windows as hours."""

    patterns: tuple[tuple[str, re.Pattern[str]], ...]
    """(tier, pattern); the first that matches decides."""

    senders: dict[str, float]
    delays_s: dict[str, float]
    default_tier: str
    raise_hours: frozenset[int]
    lower_hours: frozenset[int]
    load_above: float
    repeat_count: int
    examined_characters: int

    @classmethod
    def of(cls, settings: WakeSettings) -> Rules:
        """The rules that settings describe; yours are tried before those that come with NOVAWF."""
        yours: dict[str, tuple[str, ...]] = settings.patterns.model_dump()
        sources = [yours, BUILTIN] if settings.builtin_patterns else [yours]
        return cls(
            patterns=tuple(
                (tier, compile_pattern(text))
                for source in sources
                for tier in ORDER
                for text in source[tier]
            ),
            senders=settings.senders,
            delays_s={tier: getattr(settings.delays, f"{tier}_s") for tier in TIERS},
            default_tier=settings.default_tier,
            raise_hours=frozenset().union(*map(hours_of, settings.raise_hours)),
            lower_hours=frozenset().union(*map(hours_of, settings.lower_hours)),
            load_above=settings.load_above,
            repeat_count=settings.repeat_count,
            examined_characters=settings.examined_characters,
        )


class Context(NamedTuple):
    """The circumstances of a signal."""

    hour: int
    """Of the day, 0 to 23, where the fleet runs."""

    load: float = 0.0
    """Load average per core."""

    repeated: int = 1
    """How often this text came within the window, this time included."""


class Escalation(NamedTuple):
    """One thing that moved the tier."""

    cause: str
    """`hour`, `repetition` or `load`."""

    steps: int
    """Tiers up, or (negative) down."""

    detail: str


@dataclass(frozen=True, slots=True)
class Classification:
    """The tier of a signal, and how it came about."""

    tier: str
    delay_s: float
    rule: str
    """What gave the text its tier before anything moved it."""

    base_tier: str
    pattern: str | None
    sender: str
    sender_rule: str | None
    """The name or pattern under which the sender has a weight."""

    sender_weight: float
    escalations: tuple[Escalation, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "tier": self.tier,
            "delay_s": self.delay_s,
            "rule": self.rule,
            "base_tier": self.base_tier,
            "pattern": self.pattern,
            "sender": self.sender,
            "sender_rule": self.sender_rule,
            "sender_weight": self.sender_weight,
            "escalations": [escalation._asdict() for escalation in self.escalations],
        }

    def summary(self) -> str:
        """One line: what decided, and what moved it."""
        parts = [self.rule]
        if self.sender_weight:
            parts.append(f"sender {self.sender_rule} {self.sender_weight:+g}")
        parts += [f"{e.cause} {e.steps:+d} ({e.detail})" for e in self.escalations]
        return "; ".join(parts)


def classify(
    text: str, sender: str, context: Context, rules: Rules, priority: str | None = None
) -> Classification:
    """The tier of one signal. Every text has one; the same arguments give the same answer.

    An explicit `priority`, one of the tiers, is the tier: nothing moves it. A greater weight of the
    sender never gives a lower tier.
    """
    if priority is not None:
        return Classification(
            priority, rules.delays_s[priority], f"its own priority: {priority}", priority, None,
            sender, None, 0.0, (),
        )  # fmt: skip
    base, pattern = _base_tier(text[: rules.examined_characters], rules)
    named, weight = _weight(sender, rules.senders)
    escalations = list(_escalations(context, rules))
    level = TIERS.index(base) + weight + sum(escalation.steps for escalation in escalations)
    tier = TIERS[min(max(math.floor(level + 0.5), 0), len(TIERS) - 1)]
    if tier == "low" and context.load > rules.load_above:
        tier = "background"
        detail = f"load {context.load:.2f} per core is above {rules.load_above:g}"
        escalations.append(Escalation("load", -1, detail))
    return Classification(
        tier=tier,
        delay_s=rules.delays_s[tier],
        rule=f"{base} pattern {pattern}" if pattern else f"no pattern matches: {base}",
        base_tier=base,
        pattern=pattern,
        sender=sender,
        sender_rule=named,
        sender_weight=weight,
        escalations=tuple(escalations),
    )


def _base_tier(text: str, rules: Rules) -> tuple[str, str | None]:
    for tier, pattern in rules.patterns:
        if pattern.search(text):
            return tier, pattern.pattern
    return rules.default_tier, None


def _weight(sender: str, senders: dict[str, float]) -> tuple[str | None, float]:
    """The weight under the sender's own name, or else under the longest pattern that fits it."""
    if sender in senders:
        return sender, senders[sender]
    fitting = [name for name in senders if fnmatchcase(sender, name)]
    if not fitting:
        return None, 0.0
    named = max(fitting, key=lambda name: (len(name), name))
    return named, senders[named]


def _escalations(context: Context, rules: Rules) -> list[Escalation]:
    found = []
    if context.hour in rules.raise_hours:
        found.append(Escalation("hour", 1, f"at {context.hour:02d}:00 signals are raised"))
    if context.hour in rules.lower_hours:
        found.append(Escalation("hour", -1, f"at {context.hour:02d}:00 signals are lowered"))
    if 0 < rules.repeat_count <= context.repeated:
        found.append(Escalation("repetition", 1, f"the same text came {context.repeated} times"))
    return found
