"""What a job asks of the fleet before a request, and what it tells afterwards. Plain values.

They travel from the worker through its Nova to the limiter, and past it to whoever counts money.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Event = Literal["ok", "failed", "answered", "void"]
"""What a request's end is to the breaker of its upstream.

* ``ok``: it went well.
* ``failed``: the upstream did not do what it is for (no answer, time-out, 5xx).
* ``answered``: it did not go well, and the upstream is not ill: 429 is advice, another 4xx is
  about the request.
* ``void``: it was never sent.
"""

TOO_MANY = 429
OVERLOADED = 529
SLOW_DOWN = (TOO_MANY, OVERLOADED)
"""The answers that block a limit."""


@dataclass(frozen=True, slots=True)
class ApiAsk:
    """One request that is about to be made."""

    limit: str = ""
    """The limit it names, such as `anthropic/alice`; '' for none but the fleet's."""
    cost_usd: float | None = None
    """What it will cost at most; None: nothing was said, 0: it is free."""
    tokens: int = 0
    """What it will use at most; 0: nothing was said."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """How a request ended, and what the provider said. None: nothing was said."""

    ok: bool
    status: int | None = None
    """HTTP status."""
    retry_after_s: float | None = None
    utilization: float | None = None
    """Share of the provider's own limit that is used up, 0 to 1; the fullest of several."""
    remaining: int | None = None
    """Requests left of that limit, where it counts requests."""
    resets_in_s: float | None = None
    """When that limit is fresh again, from now."""
    cost_usd: float | None = None
    """What it did cost."""
    tokens: int | None = None
    """What it did use."""

    @property
    def event(self) -> Event:
        """What this is to the breaker."""
        if self.status is not None and self.status >= 500:
            return "failed"
        if self.status is not None and self.status >= 400:
            return "answered"
        return "ok" if self.ok else "failed"


OK = ApiAnswer(ok=True)
FAILED = ApiAnswer(ok=False)
