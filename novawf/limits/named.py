"""Which limits a request counts in: the fleet's, and every declared one along the path it names.

Pure. An undeclared name is refused: a mistyped login would otherwise have no limit at all.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from novawf.errors import UserError

if TYPE_CHECKING:
    from novawf.limits.config import LimitSettings, NamedLimit

FLEET = ""
"""The name of the limit that every request counts in."""
DEFAULT_UPSTREAM = "default"
"""The upstream of requests that name no limit."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """One limit; None: no such bound."""

    name: str
    per_minute: int | None
    per_hour: int | None
    concurrent: int | None

    def less(self, share: float) -> Bounds:
        """What is left of each bound when a share of it, rounded down, is kept for others."""

        def rest(bound: int | None) -> int | None:
            return None if bound is None else bound - math.floor(share * bound)

        return Bounds(self.name, rest(self.per_minute), rest(self.per_hour), rest(self.concurrent))


@dataclass(frozen=True, slots=True)
class Route:
    """Everything that a request under one name has to pass."""

    name: str
    upstream: str
    """Whose breaker it is: the first part of the name."""
    bounds: tuple[Bounds, ...]
    """The fleet's first, then from the provider to the login."""
    timeout_ms: int

    @property
    def per_minute(self) -> int:
        """The narrowest of its bounds."""
        return min(bound.per_minute for bound in self.bounds if bound.per_minute is not None)


def route(settings: LimitSettings, name: str) -> Route:
    """The limits of a request that names `name` ('': none). Raises UserError when undeclared."""
    fleet = Bounds(
        FLEET, settings.requests_per_minute, settings.requests_per_hour, settings.concurrent
    )
    if name == FLEET:
        return Route(name, DEFAULT_UPSTREAM, (fleet,), round(settings.request_timeout_s * 1000))
    if name not in settings.named:
        raise UserError(undeclared(name, settings.named))
    parts = name.split("/")
    path = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    declared = [(step, settings.named[step]) for step in path if step in settings.named]
    timeouts = [one.request_timeout_s for _, one in declared if one.request_timeout_s is not None]
    return Route(
        name,
        parts[0],
        (fleet, *(_bounds(step, one) for step, one in declared)),
        round((timeouts[-1] if timeouts else settings.request_timeout_s) * 1000),
    )


def routes(settings: LimitSettings) -> list[Route]:
    """One for each limit that a request may name, the fleet's first."""
    return [route(settings, name) for name in (FLEET, *sorted(settings.named))]


def undeclared(name: str, known: object) -> str:
    """Why a name is refused, in one line."""
    names = sorted(known) if isinstance(known, dict) else []
    shown = name if name.isprintable() else repr(name)
    said = f"limit {shown[:100]}: it is not declared, so no request may be made under it; "
    if not names:
        return said + f'declare it as [limits.named."{shown[:100]}"], or name none'
    near = difflib.get_close_matches(name, names, 1, 0.0)
    return said + f"the nearest known is {near[0]}"


def _bounds(name: str, limit: NamedLimit) -> Bounds:
    return Bounds(name, limit.requests_per_minute, limit.requests_per_hour, limit.concurrent)
