"""Which actors of a fleet on a cluster run already, and which of them go on.

A supervisor that begins asks every actor of its fleet who it is: that is the truth, the records in
the store add only what no actor knows (restarts, quarantine). A Nova goes on when it has the epoch
that the store knows its name by; whatever else runs under the fleet's names is ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError

from actors.child import Child, Life
from actors.handles import ActorHandle, described, living
from novawf.errors import CorruptState
from novawf.store import keys
from novawf.supervision.causes import Cause
from novawf.workflow.identity import ChildRecord

log = logging.getLogger("novawf.actors")

ANSWER_S = 10.0
"""An actor that takes longer to say who it is is hung, and ended."""
UNWATCHED = "it ended while no supervisor ran"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one actor said of itself; `nova` is '' for all but Novas at work."""

    actor: ActorHandle
    nova: str
    pid: int
    epoch: int
    node: str
    started: bool = True
    """Its `start` was answered; one that was only made never works."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is there of a fleet."""

    novas: Mapping[str, Answer] = field(default_factory=dict)
    shared: Mapping[str, Answer] = field(default_factory=dict)
    keepers: Mapping[str, ActorHandle] = field(default_factory=dict)
    ended: Collection[ActorHandle] = ()
    """To be ended: spares, stale lives, and what does not answer."""
    records: Mapping[str, ChildRecord] = field(default_factory=dict)
    """What the supervisor before said of the fleet's children; none of a fleet on one machine."""
    recorded: Collection[str] = ()
    """Every name that the store has a record of, whatever that was."""

    @property
    def members(self) -> list[str]:
        """The Novas of the fleet, living or dead; none where there is no fleet to go on with.

        One that was stopped is one of them: of a fleet that ended in order there are no records,
        and who was removed has none.
        """
        recorded = [name for name, record in self.records.items() if record.kind == "nova"]
        return [*recorded, *(name for name in self.novas if name not in recorded)]

    @property
    def lives(self) -> set[tuple[str, int]]:
        """Name and epoch of each Nova that goes on."""
        return {(answer.nova, answer.epoch) for answer in self.novas.values()}


def sort_out(
    answers: Iterable[Answer], epochs: Mapping[str, int], shared_names: Collection[str]
) -> tuple[dict[str, Answer], dict[str, Answer], list[Answer]]:
    """Novas and shared actors that go on, by their name, and actors that must end. Pure.

    `epochs`: Nova → the epoch that the store knows. Names are without the fleet's prefix.
    """
    novas: dict[str, Answer] = {}
    shared: dict[str, Answer] = {}
    others: list[Answer] = []
    for answer in answers:
        name = answer.actor.name.rpartition("/")[2]
        if name in shared_names and answer.started:
            shared[name] = answer
        elif answer.nova and epochs.get(answer.nova) == answer.epoch:
            novas[answer.nova] = answer
        else:
            others.append(answer)
    return novas, shared, others


async def look(redis: Any, prefix: str, shared_names: Collection[str]) -> Found:
    """Ask everyone. Raises redis' errors."""
    actors = await asyncio.to_thread(living, prefix)
    keepers = {a.name: a for a in actors if a.name.startswith(f"{prefix}keepers-")}
    asked = [actor for actor in actors if actor.name not in keepers]
    answers = await asyncio.gather(*(_ask(actor) for actor in asked))
    epochs = {
        name: int(epoch)
        for name, epoch in (await redis.hgetall(keys.IDENTITY)).items()
        if ":" not in name
    }
    children: dict[str, str] = await redis.hgetall(keys.CHILDREN)
    fleet = json.loads(await redis.hget(keys.FLEET, "document") or "{}")
    novas, shared, others = sort_out([a for a in answers if a is not None], epochs, shared_names)
    silent = [actor for actor, answer in zip(asked, answers, strict=True) if answer is None]
    return Found(
        novas=novas,
        shared=shared,
        keepers=keepers,
        ended=[*silent, *(answer.actor for answer in others)],
        records=_records(children) if fleet.get("on_cluster") else {},
        recorded=children.keys() | set(await redis.hkeys(keys.NOVAS)),
    )


def adopt(child: Child, found: Found) -> bool:
    """Let a child begin with the life it has, and with its past; whether it has one."""
    record = found.records.get(child.spec.id)
    if record is not None:
        child.restarts, child.node = record.restarts, record.node
        if record.state == "quarantined":
            child.state, child.cause = "quarantined", record.cause
            return False
    lives = found.novas if child.kind == "nova" else found.shared
    answer = lives.get(child.spec.id)
    if answer is None:
        if record is not None and record.alive:
            child.cause, child.why = UNWATCHED, Cause.CRASH
            child.restarts += 1
        return False
    child.adopted = Life(answer.actor, answer.pid, answer.epoch)
    child.node = answer.node
    if record is not None:
        child.since, child.cause = record.since, record.cause
    return True


async def _ask(actor: ActorHandle) -> Answer | None:
    try:
        async with asyncio.timeout(ANSWER_S):
            said = await actor.about()
    except (RayError, TimeoutError) as error:
        log.warning("%s does not say who it is: %s", actor.name, described(error))
        return None
    return Answer(
        actor, said["nova"], said["pid"], said["epoch"], said["node"], said.get("started", True)
    )


def _records(texts: Mapping[str, str]) -> dict[str, ChildRecord]:
    records = {}
    for name, text in texts.items():
        try:
            records[name] = ChildRecord.from_json(text)
        except CorruptState as error:
            log.warning("the record of %s: %s", name, error)
    return records
