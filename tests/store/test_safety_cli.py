"""`novawf safety` on a real store: what people and scripts see, and the repairs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from novawf.client import Fleet
from novawf.clock import ManualClock
from novawf.errors import CorruptState, UserError
from novawf.safety.assembly import MECHANISMS, orchestrator_of
from novawf.safety.config import SafetySettings
from novawf.safety.events import Kind, SafetyEvent, report
from novawf.safety.gate import Gate
from novawf.store import keys
from novawf.store.connect import StoreAddress
from novawf.work.jobs.safety import safety_check
from novawf.work.jobs.table import JobContext

if TYPE_CHECKING:
    from redis.asyncio import Redis


@pytest.fixture
async def fleet(redis: Any, valkey_server: StoreAddress) -> Any:
    async with Fleet.connect(store=valkey_server.url()) as fleet:
        yield fleet


async def test_status_shows_each_mechanism_with_its_reason_and_end(fleet: Fleet) -> None:
    orchestrator = orchestrator_of(fleet.redis, fleet.clock, SafetySettings())
    event = SafetyEvent(Kind.HOOK_FAILURE, "stop.sh", "it loops", "torch")
    await report(fleet.redis, fleet.clock, event)
    await report(fleet.redis, fleet.clock, SafetyEvent(Kind.API_HAMMERING, "x", "no permit"))
    await orchestrator.round()
    document = (await fleet.status())["safety"]
    assert document == await fleet.safety() | {"checked_at": document["checked_at"]}
    rows = {row["name"]: row for row in document["mechanisms"]}
    assert set(rows) == set(MECHANISMS)
    assert rows["api_guardian"]["recommended_action"] == "halt"
    assert rows["api_guardian"]["until"] is not None
    assert rows["stream_monitor"]["is_safe"]
    assert (document["safe"], document["action"]) == (False, "halt")
    assert "stop.sh" in document["holds"]["torch"]["reason"]
    assert document["violations"]["hook_failure"] == 1
    assert json.dumps(document)


async def test_a_reset_ends_what_a_mechanism_holds(fleet: Fleet) -> None:
    orchestrator = orchestrator_of(fleet.redis, fleet.clock, SafetySettings())
    await report(fleet.redis, fleet.clock, SafetyEvent(Kind.API_HAMMERING, "x", "no permit"))
    await orchestrator.round()
    assert await fleet.reset_safety("api_guardian") == ["api_guardian"]
    await orchestrator.round()
    assert (await fleet.safety())["action"] == "delay", "frosty was not reset"
    assert await fleet.reset_safety("all") == list(MECHANISMS)
    await orchestrator.round()
    assert (await fleet.safety())["safe"]


async def test_a_name_that_is_none_is_refused_with_those_that_are(fleet: Fleet) -> None:
    with pytest.raises(UserError, match="frosty, really_chill_willy"):
        await fleet.reset_safety("frost")


@pytest.mark.parametrize("how", ["type", "field"])
async def test_a_gate_that_cannot_be_read_comes_back_stopped(fleet: Fleet, how: str) -> None:
    client: Any = fleet.redis
    if how == "type":
        await client.set(keys.GATE, "garbage")
    else:
        await client.hset(keys.GATE, "valid_until", "garbage")
    with pytest.raises(CorruptState, match="novawf safety reset gate"):
        await fleet.safety()
    await fleet.reset_safety("gate", by="ada")
    await orchestrator_of(fleet.redis, fleet.clock, SafetySettings()).round()
    view = await Gate(fleet.redis, fleet.clock).read()
    assert view.stopped
    assert view.stop_by == "ada"
    await fleet.clear_stop()
    assert (await fleet.safety())["safe"]


async def test_the_self_check_finds_what_contradicts(redis: Redis, clock: ManualClock) -> None:
    context = JobContext(redis, clock, "")
    client: Any = redis
    assert not (await safety_check(context, ()))["ok"], "nobody has given a verdict"
    await orchestrator_of(redis, clock, SafetySettings()).round()
    found = await safety_check(context, ())
    assert found["ok"], found["findings"]
    assert {row["check"] for row in found["rows"]} >= {"gate", "mechanisms", "limits", "queue"}
    await client.hset(keys.SAFETY_STATE, "frosty", "garbage")
    found = await safety_check(context, ())
    assert [row["check"] for row in found["rows"] if not row["ok"]] == ["mechanisms"]
    assert "novawf safety reset frosty" in found["findings"][0]
