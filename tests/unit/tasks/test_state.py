"""Reading a task's packed state: all of it, or an error that names the task."""

from __future__ import annotations

import pytest

from novawf.errors import CorruptState
from novawf.tasks.state import Event, TaskState, unpack, unpack_history

PACKED = "in_progress||2|4|5|torch|3|echo|300000|2023-11-14T22:13:20.000Z|1700|1600|1|9000|1|1"


def test_every_field_has_its_place() -> None:
    assert unpack("T-1-000001", PACKED) == TaskState(
        status="in_progress",
        outcome="",
        attempt=2,
        limit=4,
        epoch=5,
        owner="torch",
        nova_epoch=3,
        target="echo",
        tier_ms=300_000,
        created="2023-11-14T22:13:20.000Z",
        updated_ms=1700,
        ready_ms=1600,
        cancel=True,
        deadline_ms=9000,
        dependents=True,
        approved=True,
    )


def test_empty_marks_are_none() -> None:
    state = unpack("T-1-000001", PACKED.removesuffix("1|9000|1|1") + "|||")
    assert (state.cancel, state.deadline_ms, state.dependents) == (False, None, False)
    assert not state.approved


def test_the_lines_behind_the_state_are_its_history_and_do_not_harm_it() -> None:
    packed = PACKED + "\n1600|created||0|\n1700|claimed|torch|2|with | a bar\nbroken\n"
    assert unpack("T-1-000001", packed) == unpack("T-1-000001", PACKED)
    assert unpack_history(packed) == [
        Event(1600, "created", "", 0, ""),
        Event(1700, "claimed", "torch", 2, "with | a bar"),
    ]


@pytest.mark.parametrize(
    "packed",
    [
        "",
        "pending",
        PACKED + "|more",
        PACKED.replace("|2|4|", "|two|4|"),
        PACKED.replace("|5|", "||"),
        PACKED.replace("300000", "soon"),
    ],
)
def test_what_we_did_not_write_is_refused_with_the_tasks_id(packed: str) -> None:
    with pytest.raises(CorruptState, match="T-1-000001"):
        unpack("T-1-000001", packed)


def test_an_error_shows_only_the_beginning_of_a_long_value() -> None:
    with pytest.raises(CorruptState) as caught:
        unpack("T-1-000001", "x" * 100_000)
    assert len(str(caught.value)) < 400
