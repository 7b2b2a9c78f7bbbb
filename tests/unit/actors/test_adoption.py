"""Which actors go on under a new supervisor: the store's epochs decide, and nothing is guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.adoption import UNWATCHED, Answer, Found, adopt, sort_out
from actors.child import Child
from actors.handles import ActorHandle
from novawf.supervision.child_spec import ChildSpec
from novawf.workflow.identity import ChildRecord

SHARED = ("safety", "limiter")


def answer(name: str, nova: str = "", epoch: int = 0) -> Answer:
    return Answer(ActorHandle(f"f1/{name}", None), nova, 4711, epoch, "node-a")


def record(**changes: object) -> ChildRecord:
    fields = {
        "kind": "nova", "pid": 1, "alive": True, "restarts": 2, "state": "running",
        "since": "2026-01-01T00:00:00.000Z", "node": "node-a", "epoch": 7,
    }  # fmt: skip
    return ChildRecord(**(fields | changes))  # type: ignore[arg-type]


def child(name: str = "torch") -> Child:
    return Child(ChildSpec(name), "nova", "", object, ())


def test_a_nova_goes_on_under_the_epoch_that_the_store_knows() -> None:
    novas, shared, others = sort_out([answer("nova-00", "torch", 7)], {"torch": 7}, SHARED)
    assert (list(novas), shared, others) == (["torch"], {}, [])


@pytest.mark.parametrize(
    "stranger",
    [
        answer("nova-01", "torch", 6),
        answer("nova-01", "torch", 8),
        answer("nova-01", "unknown", 1),
        answer("nova-01"),
    ],
    ids=["stale", "of a store that was rolled back", "without identity", "spare"],
)
def test_all_others_are_ended(stranger: Answer) -> None:
    novas, _, others = sort_out([stranger, answer("nova-00", "torch", 7)], {"torch": 7}, SHARED)
    assert novas["torch"].epoch == 7
    assert others == [stranger]


def test_shared_actors_go_on_by_their_name() -> None:
    _, shared, others = sort_out([answer("limiter"), answer("nova-00")], {}, SHARED)
    assert list(shared) == ["limiter"]
    assert len(others) == 1


def test_a_shared_actor_that_was_made_and_never_started_is_ended() -> None:
    """Its supervisor died over its start: it answers who asks, and grants no permit, ever."""
    unstarted = replace(answer("limiter"), started=False)
    _, shared, others = sort_out([unstarted], {}, SHARED)
    assert not shared
    assert others == [unstarted]


def test_a_fleet_that_was_killed_in_its_drain_comes_back_whole() -> None:
    """Those that had ended already are recorded as stopped, and are members all the same."""
    found = Found(records={"torch": record(state="stopped", alive=False), "echo": record()})
    assert found.members == ["torch", "echo"]


def test_what_is_adopted_keeps_its_past() -> None:
    one = child()
    found = Found(novas={"torch": answer("nova-00", "torch", 7)}, records={"torch": record()})
    assert adopt(one, found)
    assert one.adopted is not None
    assert (one.adopted.pid, one.adopted.epoch, one.node) == (4711, 7, "node-a")
    assert (one.restarts, one.since) == (2, "2026-01-01T00:00:00.000Z")


def test_what_died_unwatched_is_a_restart_with_its_cause() -> None:
    one = child()
    assert not adopt(one, Found(records={"torch": record()}))
    assert (one.adopted, one.restarts, one.cause) == (None, 3, UNWATCHED)


def test_what_had_not_begun_to_run_is_no_restart() -> None:
    one = child()
    assert not adopt(one, Found(records={"torch": record(alive=False, state="starting")}))
    assert (one.restarts, one.cause) == (2, "")


def test_a_quarantine_outlives_the_supervisor() -> None:
    one = child()
    assert not adopt(one, Found(records={"torch": record(state="quarantined", cause="it crashed")}))
    assert (one.state, one.cause, one.restarts) == ("quarantined", "it crashed", 2)


def test_the_members_are_those_recorded_and_those_that_live() -> None:
    """One that joined by an order stays; one of which only the process was made is found too."""
    found = Found(
        novas={"torch": answer("nova-00", "torch", 7), "nyx": answer("nova-03", "nyx", 1)},
        records={
            "torch": record(), "echo": record(), "safety": record(kind="actor"),
        },
    )  # fmt: skip
    assert found.members == ["torch", "echo", "nyx"]
    assert Found().members == []
