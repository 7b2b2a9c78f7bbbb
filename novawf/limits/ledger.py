"""The permits in the store: granting, giving back, looking. Who is next in line is not its concern.

All state is in the store, so a limiter that died loses nothing and a new one exceeds nothing. The
decision is `scripts/acquire.lua`; this module gives it its figures and reads its answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.store.connect import StoreAddress

Blocker = Literal["", "minute", "hour", "concurrent", "clock"]
"""What keeps a permit from being granted; `clock`: fleet time went back."""

_ACQUIRE = load_script("novawf.limits", "acquire")
_RELEASE = load_script("novawf.limits", "release")
_PEEK = load_script("novawf.limits", "peek")


@dataclass(frozen=True, slots=True)
class Windows:
    """The lengths behind the limits (architecture §5, "Permits"). Only tests use other ones."""

    minute_ms: int = 60_000
    hour_ms: int = 3_600_000
    start_within_ms: int = 1_000
    """A request starts this soon after its grant or not at all; both windows are longer by it."""
    lease_margin_ms: int = 5_000
    """What a request may take beyond its time-out to be reported before its place is given away."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request: start it by `start_by_ms`, else it is void (fleet ms)."""

    id: str
    granted_at_ms: int
    start_by_ms: int
    expires_at_ms: int
    """When the place is given away, released or not."""


@dataclass(frozen=True, slots=True)
class Denied:
    """No permit now; the next could be free in `wait_ms`, or earlier by a release."""

    wait_ms: int
    blocked_by: Blocker


class Outcome(StrEnum):
    """How a permit ended."""

    OK = "ok"
    FAILED = "failed"
    VOID = "void"
    """Never used: too late, or nobody wanted it any more. It counts in its windows all the same."""


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """The limits at one moment."""

    minute_left: int
    hour_left: int
    in_use: int
    concurrent: int
    waiting: int
    """Callers in line; 0 when asked past the limiter, which alone knows them."""
    next_free_in_s: float
    """0 when a permit is free now."""
    blocked_by: Blocker
    granted: int
    ok: int
    failed: int
    expired: int
    void: int
    callers: tuple[str, ...] = ()
    """Who waits, next first; at most 20."""
    fault: str | None = None
    """Why the limiter cannot grant at all; None when it can."""


class PermitLedger:
    """Grants and takes back permits. Raises StoreUnreachable when the store does not answer.

    Then nothing may be sent (safety fails closed); repeating with the same id finds out what
    became of the grant.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: LimitSettings,
        windows: Windows | None = None,
        store: StoreAddress | str = "its URL",
    ) -> None:
        """`store` is named in errors."""
        self._redis = redis
        self._clock = clock
        self._store = store
        self._settings = settings
        self._windows = windows or Windows()

    async def grant(self, permit_id: str) -> Permit | Denied:
        """Ask for a permit under `permit_id`; an id granted before gets the same permit again."""
        settings, windows = self._settings, self._windows
        lease_ms = (
            windows.start_within_ms
            + round(settings.request_timeout_s * 1000)
            + windows.lease_margin_ms
        )
        with translate_errors(self._store):
            granted, at_or_wait_ms, blocked_by = await _ACQUIRE(
                self._redis,
                [keys.LIMIT_GRANTS, keys.LIMIT_LEASES, keys.LIMIT_COUNTS],
                [
                    self._clock.now_ms(),
                    permit_id,
                    settings.requests_per_minute,
                    windows.minute_ms + windows.start_within_ms,
                    settings.requests_per_hour,
                    windows.hour_ms + windows.start_within_ms,
                    settings.concurrent,
                    lease_ms,
                ],
            )
        if not granted:
            return Denied(at_or_wait_ms, blocked_by)
        return Permit(
            id=permit_id,
            granted_at_ms=at_or_wait_ms,
            start_by_ms=at_or_wait_ms + windows.start_within_ms,
            expires_at_ms=at_or_wait_ms + lease_ms,
        )

    async def release(self, permit_id: str, outcome: Outcome) -> bool:
        """Free the permit's place and count the outcome; False when there was nothing to free."""
        with translate_errors(self._store):
            released = await _RELEASE(
                self._redis,
                [keys.LIMIT_LEASES, keys.LIMIT_COUNTS],
                [self._clock.now_ms(), permit_id, outcome],
            )
        return bool(released)

    async def snapshot(self) -> LimitSnapshot:
        """What is left and what is in use now; changes nothing."""
        settings, windows = self._settings, self._windows
        with translate_errors(self._store):
            reply = await _PEEK(
                self._redis,
                [keys.LIMIT_GRANTS, keys.LIMIT_LEASES, keys.LIMIT_COUNTS],
                [
                    self._clock.now_ms(),
                    settings.requests_per_minute,
                    windows.minute_ms + windows.start_within_ms,
                    settings.requests_per_hour,
                    windows.hour_ms + windows.start_within_ms,
                    settings.concurrent,
                ],
            )
        minute_used, hour_used, in_use, wait_ms, blocked_by, granted, ok, failed, expired, void = (
            reply
        )
        return LimitSnapshot(
            minute_left=max(0, settings.requests_per_minute - minute_used),
            hour_left=max(0, settings.requests_per_hour - hour_used),
            in_use=in_use,
            concurrent=settings.concurrent,
            waiting=0,
            next_free_in_s=wait_ms / 1000,
            blocked_by=blocked_by,
            granted=granted,
            ok=ok,
            failed=failed,
            expired=expired,
            void=void,
        )
