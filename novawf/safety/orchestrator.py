"""Asks every safety mechanism, combines their answers, and renews the gate's verdict.

A mechanism observes (its only effect) and judges what it saw (pure). It knows nothing of its
siblings. All must agree: one that raises, that does not answer by its deadline, that judges by
stale input or whose memory cannot be read counts as unsafe. If this orchestrator itself stops, its
last verdict expires in the gate within `valid_s` and nothing starts any more: no part of this can
fail open.

A round reads what the mechanisms remember and what was reported since, lets them judge, and writes
verdict, memories and new events in one script (`round.lua`): a crash between two rounds loses
nothing, and no event counts twice. An orchestrator that was taken for dead and wakes up is refused
by its epoch.

Whether a claim is refused is not decided here; the claim script reads the gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from novawf.clock import monotonic_s
from novawf.errors import CorruptState, Fenced, NovawfError
from novawf.safety.events import entry_order
from novawf.safety.gate import Gate
from novawf.safety.mechanism import Judgement, Mechanism, Observation
from novawf.safety.memory import unreadable
from novawf.safety.rounds import Round, RoundStore, Written
from novawf.safety.verdict import Verdict, combine, strongest_per_nova, unsafe

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from novawf.clock import Clock
    from novawf.safety.config import SafetySettings
    from novawf.store.connect import StoreAddress

_LOG = logging.getLogger(__name__)

_RETRY_S = 0.5
"""Pause after a renewal that failed: work resumes soon after the store is back."""

_SAID_A_ROUND = 20
"""Of more violations the rest is told as a number: a log is no place for a flood."""

Noted = Callable[[str, str, str, str], None]
"""Told of what people should know: action, target, before, after. Must not raise."""


@dataclass(frozen=True, slots=True)
class RenewalState:
    """The last renewal of the gate."""

    renewed_at_ms: int = 0
    """When a verdict last reached the gate (fleet ms); 0 never."""
    fault: str | None = None
    """Why the last renewal failed; None when it reached the gate."""


@dataclass(frozen=True, slots=True)
class SafetyStatus:
    """The orchestrator's last round."""

    verdict: Verdict | None = None
    """None before the first round."""
    mechanisms: Mapping[str, Verdict] = field(default_factory=dict)
    holds: Mapping[str, Verdict] = field(default_factory=dict)
    check_s: float = 0.0
    """How long the round took, without the renewal."""
    renewal: RenewalState = field(default_factory=RenewalState)


class SafetyOrchestrator:
    """Renews the safety verdict every `refresh_s` until it is cancelled."""

    def __init__(
        self,
        redis: Redis,
        clock: Clock,
        settings: SafetySettings,
        mechanisms: Sequence[Mechanism[Any, Any]],
        store: StoreAddress | str = "its URL",
        noted: Noted = lambda *_: None,
    ) -> None:
        """`store` is named in errors."""
        self._gate = Gate(redis, clock, store)
        self._rounds = RoundStore(redis, clock, store, [each.name for each in mechanisms])
        self._clock = clock
        self._settings = settings
        self._mechanisms = tuple(mechanisms)
        self._noted = noted
        self._looking: dict[str, asyncio.Task[Any]] = {}
        self._status = SafetyStatus()

    def status(self) -> SafetyStatus:
        """What the last round found."""
        return self._status

    async def run(self) -> None:
        """Rounds without end. Cancelling it lets the verdict expire. Raises Fenced when another
        orchestrator is at work on this store."""
        try:
            while True:
                started_s = monotonic_s()
                status = await self.round()
                pause_s = self._settings.refresh_s if status.renewal.fault is None else _RETRY_S
                await asyncio.sleep(max(0.0, started_s + pause_s - monotonic_s()))
        finally:
            for task in self._looking.values():
                task.cancel()

    async def round(self) -> SafetyStatus:
        """Ask every mechanism once and renew the gate; never raises for a fault of either, only
        Fenced."""
        started_s, started_ms = monotonic_s(), self._clock.now_ms()
        # A verdict holds from the moment its evidence was gathered, not from when it was written.
        valid_until_ms = started_ms + round(self._settings.valid_s * 1000)
        self._look()
        known, fault = await self._known()
        judged = await self._judge_all(known, fault, valid_until_ms)
        verdicts = {name: judgement.verdict for name, judgement in judged.items()}
        if self._status.renewal.fault is not None:
            said = f"the last renewal failed: {self._status.renewal.fault}"
            verdicts["gate"] = unsafe(said, valid_until_ms)
        verdict = combine(verdicts, self._clock.now_ms(), valid_until_ms)
        holds = strongest_per_nova(
            {name: judgement.holds for name, judgement in judged.items()}, valid_until_ms
        )
        check_s = monotonic_s() - started_s
        self._note(verdict, known)
        if known is None:
            renewal = await self._renew_alone(verdict, started_ms)
        else:
            renewal = await self._renew(
                Round(started_ms, verdict, holds, self._memories(known, judged),
                      [event for j in judged.values() for event in j.violations],
                      known.unposted, check_s)
            )  # fmt: skip
        self._status = SafetyStatus(verdict, verdicts, holds, check_s, renewal)
        return self._status

    # -- asking ---------------------------------------------------------------------------------

    def _look(self) -> None:
        for mechanism in self._mechanisms:
            # One that still hangs from an earlier round is waited for, never started twice; what
            # it found after its deadline is dropped.
            looking = self._looking.get(mechanism.name)
            if looking is None or looking.done():
                task = asyncio.create_task(
                    _timed(mechanism, self._clock), name=f"safety-{mechanism.name}"
                )
                self._looking[mechanism.name] = task

    async def _known(self) -> tuple[Written | None, str]:
        """What is remembered and was reported; else why that is not known."""
        try:
            async with asyncio.timeout(self._settings.refresh_s):
                return await self._rounds.read(), ""
        except Fenced:
            raise
        except TimeoutError:
            return None, "the store did not tell what the mechanisms remember"
        except CorruptState as error:
            return None, f"{error}; `novawf safety reset all` lets the mechanisms begin anew"
        except NovawfError as error:
            return None, str(error)

    async def _judge_all(
        self, known: Written | None, fault: str, valid_until_ms: int
    ) -> dict[str, Judgement[Any]]:
        asked = [self._ask(each, known, fault, valid_until_ms) for each in self._mechanisms]
        answers = await asyncio.gather(*asked)
        return {each.name: answer for each, answer in zip(self._mechanisms, answers, strict=True)}

    async def _ask(
        self, mechanism: Mechanism[Any, Any], known: Written | None, fault: str, until_ms: int
    ) -> Judgement[Any]:
        name, task = mechanism.name, self._looking[mechanism.name]
        limit_s = min(mechanism.deadline_s, self._settings.refresh_s)
        done, _ = await asyncio.wait([task], timeout=limit_s)
        if not done:
            task.cancel()
            return _failed(f"no answer within {limit_s:g} s", until_ms)
        if task.cancelled():
            return _failed("no answer: it was cancelled", until_ms)
        try:
            at_ms, seen = task.result()
            if known is None:
                return _failed(fault, until_ms)
            remembered = known.memories[name]
            if isinstance(remembered, CorruptState):
                raise remembered
            try:
                memory = mechanism.parse(remembered.memory)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise unreadable(name, error) from None
            events = tuple(e for e in known.events if _later(e.id, remembered.cursor))
            return self._judge(mechanism, Observation(at_ms, seen, events), memory, until_ms)
        except CorruptState as error:
            return _failed(str(error), until_ms)
        except Exception as error:
            # Fails closed, whatever it was: a broken check is not a passed one.
            _LOG.warning("safety mechanism %s failed", name, exc_info=error)
            return _failed(f"its check failed: {error!r}", until_ms)

    def _judge(
        self,
        mechanism: Mechanism[Any, Any],
        observation: Observation[Any],
        memory: Any,
        until_ms: int,
    ) -> Judgement[Any]:
        now_ms = self._clock.now_ms()
        age_ms = now_ms - observation.at_ms
        if not 0 <= age_ms <= self._settings.valid_s * 1000:
            return _failed(f"its input is stale ({age_ms / 1000:.1f} s old)", until_ms)
        started_s = monotonic_s()
        judgement = mechanism.evaluate(observation, memory, now_ms)
        if monotonic_s() - started_s > mechanism.deadline_s:
            return _failed(f"its evaluation took over {mechanism.deadline_s:g} s", until_ms)
        return judgement

    # -- writing --------------------------------------------------------------------------------

    def _memories(self, known: Written, judged: Mapping[str, Judgement[Any]]) -> dict[str, str]:
        """The fields that are to be written anew: those that are not what they were."""
        fields = {}
        for mechanism in self._mechanisms:
            judgement = judged[mechanism.name]
            if judgement.memory is UNJUDGED:
                continue  # it did not judge: it stays as it was, events included
            before = known.memories[mechanism.name]
            if isinstance(before, CorruptState):
                continue  # it is evidence
            after = replace(
                before,
                cursor=max(before.cursor, known.last, key=entry_order),
                memory=mechanism.dump(judgement.memory),
                verdict=judgement.verdict,
                holds=judgement.holds,
            )
            text = after.to_json()
            if text != known.fields.get(mechanism.name):
                fields[mechanism.name] = text
        return fields

    async def _renew(self, written: Round) -> RenewalState:
        try:
            await self._rounds.write(written)
        except Fenced:
            raise
        except NovawfError as error:
            return self._not_renewed(error)
        return RenewalState(self._clock.now_ms())

    async def _renew_alone(self, verdict: Verdict, checked_at_ms: int) -> RenewalState:
        """Only the verdict, which is against work: what belongs to it cannot be read."""
        try:
            await self._gate.refresh(verdict, checked_at_ms)
        except NovawfError as error:
            return self._not_renewed(error)
        return RenewalState(self._clock.now_ms())

    def _not_renewed(self, error: NovawfError) -> RenewalState:
        before = self._status.renewal
        if before.fault is None:
            _LOG.warning("the safety verdict cannot be renewed: %s", error)
        return RenewalState(before.renewed_at_ms, str(error))

    def _note(self, verdict: Verdict, known: Written | None) -> None:
        before = self._status.verdict
        if before is None or before.recommended_action != verdict.recommended_action:
            log = _LOG.info if verdict.is_safe else _LOG.warning
            log("safety verdict: %s", verdict.reason)
            self._noted(
                "safety.verdict",
                "fleet",
                "" if before is None else before.recommended_action.word,
                f"{verdict.recommended_action.word}: {verdict.reason}",
            )
        unposted = () if known is None else known.unposted
        for event in unposted[:_SAID_A_ROUND]:
            _LOG.warning("safety: %s by %s: %s", event.kind.value, event.source, event.detail)
            self._noted(
                f"safety.{event.kind.value}", event.nova or "fleet", "",
                f"{event.source}: {event.detail}",
            )  # fmt: skip
        if len(unposted) > _SAID_A_ROUND:
            more = f"{len(unposted) - _SAID_A_ROUND} more violations in the same round"
            _LOG.warning("safety: %s", more)
            self._noted("safety.violations", "fleet", "", more)


UNJUDGED = object()
"""The memory of a judgement that was none."""


def _failed(reason: str, until_ms: int) -> Judgement[Any]:
    return Judgement(unsafe(reason, until_ms), UNJUDGED)


async def _timed(mechanism: Mechanism[Any, Any], clock: Clock) -> tuple[int, Any]:
    at_ms = clock.now_ms()
    return at_ms, await mechanism.observe()


def _later(entry_id: str, cursor: str) -> bool:
    return entry_order(entry_id) > entry_order(cursor)
