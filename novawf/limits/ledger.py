"""The permits in the store: granting, giving back, looking. Who is next in line is not its concern.

All state is in the store, so a limiter that died loses nothing and a new one exceeds nothing, and
any number of processes may ask: each decision is one script (`scripts/acquire.lua`, `release.lua`).
This module gives them their figures and reads their answers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from novawf.limits.named import DEFAULT_UPSTREAM, FLEET, Bounds, Route, route, routes
from novawf.limits.provider import Advice, AdviceRules, advise
from novawf.limits.request import ApiAnswer, Event
from novawf.store import keys
from novawf.store.connect import translate_errors
from novawf.store.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.limits.config import LimitSettings
    from novawf.store.connect import StoreAddress

Blocker = Literal[
    "", "minute", "hour", "concurrent", "breaker", "provider", "corrupt", "clock", "stop", "safety"
]
"""What keeps a permit from being granted. `breaker`: the upstream's is open; `provider`: its own
answers say so; `corrupt`: what the store holds about it cannot be read; `clock`: fleet time went
back; `stop`, `safety`: the gate."""

_ACQUIRE = load_script("novawf.limits", "acquire", "breaker", "advice", "limits")
_RELEASE = load_script("novawf.limits", "release", "breaker", "advice")
_PEEK = load_script("novawf.limits", "peek", "breaker", "advice", "limits")

UNBOUND = -1
_COUNTS = 9


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
    timeout_ms: int = 30_000
    """How long the request may take from its start."""
    limit: str = FLEET
    """What it was granted for."""

    def as_json(self) -> dict[str, Any]:
        """As a job gets it."""
        return asdict(self) | {"timeout_s": self.timeout_ms / 1000}


@dataclass(frozen=True, slots=True)
class Denied:
    """No permit now; the next could be free in `wait_ms`, or earlier by a release."""

    wait_ms: int
    blocked_by: Blocker
    limit: str = FLEET
    """Which limit blocks, or which upstream's breaker; '' is the fleet's."""


class Request(NamedTuple):
    """One permit that is asked for."""

    id: str
    limit: str = FLEET
    critical: bool = False


class Outcome(StrEnum):
    """How a permit ended."""

    OK = "ok"
    FAILED = "failed"
    VOID = "void"
    """Never used: too late, or nobody wanted it any more. It counts in its windows all the same."""


class Release(StrEnum):
    """What a release found."""

    RELEASED = "released"
    NO_LEASE = "no_lease"
    """It was released before, or its lease had expired."""
    UNPERMITTED = "unpermitted"
    """The store knows of no such grant: the request was sent without one."""


_RELEASES = {1: Release.RELEASED, 0: Release.NO_LEASE, -1: Release.UNPERMITTED}


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """One limit at one moment; by default the fleet's."""

    minute_left: int
    hour_left: int
    in_use: int
    concurrent: int
    waiting: int
    """Callers in line; 0 when asked past the limiter, which alone knows them."""
    next_free_in_s: float
    """0 when a permit is free now, for a caller that is not critical."""
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
    unpermitted: int = 0
    """Requests that ended and that no grant is known of."""
    name: str = FLEET
    blocked_limit: str = FLEET
    """The limit or upstream that `blocked_by` is about."""
    requests_per_minute: int = UNBOUND
    requests_per_hour: int = UNBOUND


class PermitLedger:
    """Grants and takes back permits. Raises StoreUnreachable when the store does not answer.

    Then nothing may be sent (safety fails closed); repeating with the same id finds out what
    became of the grant. A limit that is not declared raises UserError.
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
        self._routes: dict[str, Route] = {}
        self._advice_rules = AdviceRules(_ms(settings.advice_cap_s), settings.utilization)

    def route(self, limit: str) -> Route:
        """What a request under this name has to pass. Raises UserError when it is not declared."""
        found = self._routes.get(limit)
        if found is None:
            found = self._routes[limit] = route(self._settings, limit)
        return found

    async def grant(
        self, permit_id: str, limit: str = FLEET, *, critical: bool = False
    ) -> Permit | Denied:
        """Ask for a permit under `permit_id`; an id granted before gets the same permit again."""
        (answer,) = await self.grant_many([Request(permit_id, limit, critical)])
        return answer

    async def grant_many(self, requests: Sequence[Request]) -> list[Permit | Denied]:
        """Ask for several in one round trip; who stands first is looked at first."""
        found = [self.route(request.limit) for request in requests]
        with translate_errors(self._store):
            reply = await _ACQUIRE(self._redis, *self._call(found, requests))
        return [
            self._permit(request, way, reply[at + 1])
            if reply[at]
            else Denied(reply[at + 1], reply[at + 2], reply[at + 3])
            for request, way, at in zip(requests, found, range(0, len(reply), 4), strict=True)
        ]

    async def release(
        self,
        permit_id: str,
        outcome: Outcome,
        limit: str = FLEET,
        answer: ApiAnswer | None = None,
    ) -> Release:
        """Free the permit's places and count the outcome; `answer` is what the provider said."""
        way = self.route(limit)
        event: Event
        if outcome is Outcome.VOID:
            event, advice = "void", Advice()
        else:
            answer = answer or ApiAnswer(ok=outcome is Outcome.OK)
            event = answer.event
            advice = advise(answer, way.per_minute, self._advice_rules)
        settings = self._settings
        with translate_errors(self._store):
            code = await _RELEASE(
                self._redis,
                [
                    keys.LIMIT_GRANTS,
                    keys.LIMIT_BREAKERS,
                    keys.LIMIT_ADVICE,
                    *(key for bounds in way.bounds for key in _keys(bounds.name)[1:]),
                ],
                [
                    self._clock.now_ms(), permit_id, outcome, way.upstream, limit, event,
                    settings.breaker_failures, _ms(settings.breaker_open_s),
                    _ms(settings.breaker_open_cap_s), advice.block_ms, advice.gap_ms,
                    advice.gap_for_ms, self._advice_rules.cap_ms, _ms(settings.backoff_s),
                ],
            )  # fmt: skip
        return _RELEASES[code]

    async def snapshot(self) -> LimitSnapshot:
        """What is left of the fleet's limit and what is in use now; changes nothing."""
        (found,) = await self._snapshots([self.route(FLEET)])
        return found

    async def snapshots(self) -> list[LimitSnapshot]:
        """The same of every limit, the fleet's first."""
        return await self._snapshots(routes(self._settings))

    async def _snapshots(self, ways: Sequence[Route]) -> list[LimitSnapshot]:
        with translate_errors(self._store):
            reply = await _PEEK(
                self._redis, *self._call(ways, [Request("", way.name) for way in ways])
            )
        bounds = list(_involved(ways))
        waits = len(bounds) * _COUNTS
        found = {}
        for number, one in enumerate(bounds):
            found[one.name] = one, reply[number * _COUNTS : (number + 1) * _COUNTS]
        snapshots = []
        for number, way in enumerate(ways):
            wait_ms, blocked_by, whose = reply[waits + 3 * number : waits + 3 * number + 3]
            one, (minute, hour, in_use, granted, ok, failed, expired, void, bare) = found[way.name]
            snapshots.append(
                LimitSnapshot(
                    minute_left=_left(one.per_minute, minute),
                    hour_left=_left(one.per_hour, hour),
                    in_use=in_use,
                    concurrent=_bound(one.concurrent),
                    waiting=0,
                    next_free_in_s=wait_ms / 1000,
                    blocked_by=blocked_by,
                    granted=granted,
                    ok=ok,
                    failed=failed,
                    expired=expired,
                    void=void,
                    unpermitted=bare,
                    name=way.name,
                    blocked_limit=whose,
                    requests_per_minute=_bound(one.per_minute),
                    requests_per_hour=_bound(one.per_hour),
                )
            )
        return snapshots

    def _call(
        self, ways: Sequence[Route], requests: Sequence[Request]
    ) -> tuple[list[str], list[str | int]]:
        """Keys and arguments of acquire.lua and peek.lua."""
        windows = self._windows
        bounds = list(_involved(ways))
        numbers = {one.name: str(number) for number, one in enumerate(bounds, 1)}
        args: list[str | int] = [
            self._clock.now_ms(),
            windows.minute_ms + windows.start_within_ms,
            windows.hour_ms + windows.start_within_ms,
            len(bounds),
        ]
        names = [keys.GATE, keys.LIMIT_BREAKERS, keys.LIMIT_ADVICE]
        for one in bounds:
            names += _keys(one.name)
            args += [one.name, *_figures(one), *_figures(one.less(self._settings.critical_share))]
        for request, way in zip(requests, ways, strict=True):
            args += [
                request.id,
                int(request.critical),
                way.upstream,
                self._lease_ms(way),
                ",".join(numbers[one.name] for one in way.bounds),
            ]
        return names, args

    def _permit(self, request: Request, way: Route, at_ms: int) -> Permit:
        return Permit(
            id=request.id,
            granted_at_ms=at_ms,
            start_by_ms=at_ms + self._windows.start_within_ms,
            expires_at_ms=at_ms + self._lease_ms(way),
            timeout_ms=way.timeout_ms,
            limit=request.limit,
        )

    def _lease_ms(self, way: Route) -> int:
        windows = self._windows
        return windows.start_within_ms + way.timeout_ms + windows.lease_margin_ms


async def reset(redis: Redis, name: str, store: StoreAddress | str = "its URL") -> None:
    """Forget what a provider said about a limit, and close the breaker of its upstream.

    The repair for state that cannot be read: windows and leases stay as they are. A key of another
    type is removed whole, since no field of it can be.
    """
    limit = FLEET if name == DEFAULT_UPSTREAM else name
    with translate_errors(store):
        for key, field in (
            (keys.LIMIT_ADVICE, limit),
            (keys.LIMIT_BREAKERS, name.partition("/")[0] or DEFAULT_UPSTREAM),
        ):
            if await redis.type(key) in ("hash", "none"):
                await redis.hdel(key, field)
            else:
                await redis.delete(key)


def _involved(ways: Iterable[Route]) -> Iterable[Bounds]:
    """The limits of all of them, each once, the fleet's first."""
    return {bounds.name: bounds for way in ways for bounds in way.bounds}.values()


def _keys(name: str) -> tuple[str, str, str]:
    if name == FLEET:
        return keys.LIMIT_GRANTS, keys.LIMIT_LEASES, keys.LIMIT_COUNTS
    return keys.limit_grants(name), keys.limit_leases(name), keys.limit_counts(name)


def _figures(bounds: Bounds) -> tuple[int, int, int]:
    return _bound(bounds.per_minute), _bound(bounds.per_hour), _bound(bounds.concurrent)


def _bound(bound: int | None) -> int:
    return UNBOUND if bound is None else bound


def _left(bound: int | None, used: int) -> int:
    return UNBOUND if bound is None else max(0, bound - used)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
