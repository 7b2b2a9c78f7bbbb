"""The persisted workflow state: written, read back, refused."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from novawf.errors import CorruptState
from novawf.workflow.phases import Phase
from novawf.workflow.state_data import StateData
from novawf.workflow.states import State

KEY = "workflow:state:torch"
GOLDEN = Path(__file__).parent / "golden" / "workflow_state_v1.json"
GOLDEN_STATE = StateData(
    current_state=State.PROGRESS_UPDATE,
    current_phase=Phase.WORK_2,
    tasks_completed_in_phase=7,
    work_phases_completed=3,
    tool_use_count=41,
    last_stream_check=1763712000123,
    last_completion_celebration=1763711990456,
    session_start_time=1763708400000,
    total_cycles_completed=1290,
    safety_status="safe",
    owner_epoch=5,
    task_in_hand="TORCH-1763711999-00a3f1",
    resumed_from=State.TASK_EXECUTION,
)
SPECIFIED = {
    "current_state",
    "current_phase",
    "tasks_completed_in_phase",
    "tool_use_count",
    "last_stream_check",
    "last_completion_celebration",
    "session_start_time",
    "total_cycles_completed",
    "safety_status",
    "schema_version",
    "owner_epoch",
    "task_in_hand",
}


def as_mapping(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def test_a_record_of_schema_1_as_once_stored_is_still_read():
    assert StateData.from_hash(json.loads(GOLDEN.read_text()), KEY) == GOLDEN_STATE


def test_what_is_written_today_is_the_golden_record():
    assert as_mapping(GOLDEN_STATE.to_hash()) == json.loads(GOLDEN.read_text())


def test_every_attribute_and_everything_the_specification_names_is_stored():
    stored = set(as_mapping(StateData().to_hash()))
    assert stored == {field.name for field in fields(StateData)}
    assert stored >= SPECIFIED


def test_a_new_state_comes_back_as_it_was():
    assert StateData.from_hash(as_mapping(StateData().to_hash()), KEY) == StateData()


def test_replies_in_bytes_are_understood():
    raw = {k.encode(): v.encode() for k, v in as_mapping(GOLDEN_STATE.to_hash()).items()}
    assert StateData.from_hash(raw, KEY) == GOLDEN_STATE


@pytest.mark.parametrize("absent", [field.name for field in fields(StateData)])
def test_an_absent_field_gets_its_default(absent: str):
    stored = as_mapping(GOLDEN_STATE.to_hash())
    del stored[absent]
    assert getattr(StateData.from_hash(stored, KEY), absent) == getattr(StateData(), absent)


def test_a_field_of_a_later_minor_version_is_ignored():
    assert StateData.from_hash({"mood": "bright"}, KEY) == StateData()


def test_a_newer_schema_is_refused_with_what_to_do():
    with pytest.raises(CorruptState, match=r"workflow:state:torch: schema_version is 2,.*reads 1"):
        StateData.from_hash({"schema_version": "2"}, KEY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("current_state", "sleeping"),
        ("current_phase", ""),
        ("resumed_from", "nowhere"),
        ("tool_use_count", "-1"),
        ("tool_use_count", "1_0"),
        ("total_cycles_completed", " 7"),
        ("owner_epoch", "٣"),
        ("last_stream_check", "1.5"),
        ("session_start_time", "9" * 5000),
        ("schema_version", "one"),
    ],
)
def test_garbage_is_refused_naming_key_field_and_value(field: str, value: str):
    with pytest.raises(CorruptState) as refusal:
        StateData.from_hash({field: value}, KEY)
    message = str(refusal.value)
    assert KEY in message
    assert field in message
    assert value[:70] in message
    assert len(message) < 400


def test_bytes_that_are_no_text_are_refused_and_not_raised_raw():
    with pytest.raises(CorruptState, match="current_state"):
        StateData.from_hash({b"current_state": b"\xff\xfe"}, KEY)


def test_the_state_has_no_room_for_a_misspelt_attribute():
    with pytest.raises(AttributeError):
        StateData().curent_state = State.STREAM_CHECK  # type: ignore[attr-defined]
