"""The two records of a Nova: what is written is what is read, nonsense is called by its name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import CorruptState
from novawf.workflow.identity import ChildRecord, NovaBeat

BEAT = NovaBeat(12, 3, "task_execution", "work_phase_1", "TORCH-1-00002a", 7, 10, 9, 8, "Count")
CHILD = ChildRecord("nova", 12, True, 1, "running", "2026-11-21T08:00:00.000Z", "killed")


@given(title=st.text(max_size=100))
def test_a_heartbeat_survives_its_json_whatever_the_title(title: str) -> None:
    beat = NovaBeat(12, 3, "stream_check", "work_phase_2", "", 7, 10, 9, 8, title)
    assert NovaBeat.from_json(beat.to_json()) == beat


def test_a_heartbeat_is_plain_json_with_its_field_names() -> None:
    beat = replace(BEAT, permit_ms=5, error="it failed", cycle_ms=4, record_ms=3)
    assert json.loads(beat.to_json()) == asdict(beat)


def test_a_heartbeat_leaves_out_what_is_empty() -> None:
    idle = json.loads(replace(BEAT, task="", title="").to_json())
    assert set(asdict(BEAT)) - set(idle) == {
        "task", "title", "permit_ms", "error", "cycle_ms", "record_ms",
    }  # fmt: skip


def test_a_child_record_survives_its_json() -> None:
    assert ChildRecord.from_json(CHILD.to_json()) == CHILD


def test_a_child_that_never_had_a_process_has_no_pid() -> None:
    child = ChildRecord("actor", None, False, 0, "starting", "2026-11-21T08:00:00.000Z")
    assert ChildRecord.from_json(child.to_json()).pid is None


def test_fields_of_a_later_version_are_ignored() -> None:
    later = json.dumps({**json.loads(BEAT.to_json()), "mood": "good"})
    assert NovaBeat.from_json(later) == BEAT


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}'])
def test_what_is_no_record_is_called_corrupt(text: str) -> None:
    with pytest.raises(CorruptState):
        NovaBeat.from_json(text)
    with pytest.raises(CorruptState):
        ChildRecord.from_json(text)


def test_an_unknown_state_of_a_child_is_called_corrupt() -> None:
    text = CHILD.to_json().replace('"running"', '"jogging"')
    with pytest.raises(CorruptState, match="unknown"):
        ChildRecord.from_json(text)
