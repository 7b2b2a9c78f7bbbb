"""The protocol's rules, one by one, and what is said of a record that breaks them."""

from __future__ import annotations

import pickle

import pytest

from novawf.errors import ProtocolViolation
from novawf.tasks import model
from novawf.tasks.compliance import Stream, judge, stream_of
from novawf.tasks.protocol import (
    PRIORITIES,
    STATUSES,
    STATUSES_OF,
    Compliance,
    Kind,
    is_first,
    validate,
)

NOW = "2026-03-01T10:00:00.000Z"
LATER = "2026-03-01T10:00:00.001Z"
CREATED = {
    "task_id": "TORCH-1772359200-00002a",
    "title": "Count the words",
    "description": "",
    "status": "pending",
    "priority": "medium",
    "assignee": "torch",
    "created_at": NOW,
    "updated_at": NOW,
}
IN_HAND = CREATED | {"status": "in_progress", "update": "", "progress_percentage": "12.5"}
DONE = CREATED | {
    "status": "completed",
    "updated_at": LATER,
    "completed_at": LATER,
    "results": '"exit code 0"',
}
FAILED = CREATED | {"status": "blocked", "outcome": "failed", "results": '{"code": 1}'}
RECORDS: dict[Kind, list[dict[str, str]]] = {
    "todo": [
        CREATED,
        CREATED | {"status": "blocked"},
        CREATED | {"update": "taken up again"},
        CREATED | {"task_id": "FLEET-1-ffffff", "assignee": "fleet"},
        CREATED | {"task_id": "N-2_X-1772359200-000000", "title": "x" * 500},
        CREATED | {"created_at": "2026-03-01T10:00:00Z", "updated_at": "2026-03-01T10:00:00+00:00"},
    ],
    "progress": [IN_HAND, IN_HAND | {"status": "pending", "progress_percentage": ""}],
    "completed": [DONE, DONE | {"metrics": '{"s": 1.5}', "results": ""}, FAILED],
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_as_the_protocol_has_them_are_valid(kind: Kind) -> None:
    """Nothing is said against a record that keeps all rules."""
    for record in RECORDS[kind]:
        validate(kind, record)
        validate(kind, record, record["assignee"])


BROKEN: list[tuple[Kind, dict[str, str], str, str]] = [
    *(("todo", {name: "\0gone"}, name, "is missing") for name in CREATED),
    ("progress", {"update": "\0gone"}, "update", "is missing"),
    ("completed", {"completed_at": "\0gone"}, "completed_at", "is missing"),
    ("completed", {"completed_at": ""}, "completed_at", "is missing"),
    ("todo", {"colour": "red"}, "colour", "is not a field"),
    ("todo", {"task_id": "TORCH-1772359200-2a"}, "task_id", "is not of the form"),
    ("todo", {"task_id": "torch-1772359200-00002a"}, "task_id", "is not of the form"),
    ("todo", {"task_id": "TORCH-1772359200-00002A"}, "task_id", "is not of the form"),
    ("todo", {"task_id": "TORCH-1772359200-00002a\n"}, "task_id", "is not of the form"),
    ("todo", {"title": ""}, "title", "1 to 500"),
    ("todo", {"title": "x" * 501}, "title", "1 to 500"),
    ("todo", {"priority": "urgent"}, "priority", "is none of background, critical"),
    ("todo", {"status": "done"}, "status", "is none of"),
    ("todo", {"status": "in_progress"}, "status", "does not belong on a todo stream"),
    ("todo", {"status": "completed", "completed_at": NOW}, "status", "does not belong"),
    ("progress", {"status": "completed"}, "status", "does not belong on a progress stream"),
    ("completed", {"status": "pending"}, "status", "does not belong on a completed stream"),
    ("completed", {"status": "blocked"}, "completed_at", "but the status is blocked"),
    ("progress", {"completed_at": NOW}, "completed_at", "but the status is in_progress"),
    ("todo", {"assignee": ""}, "assignee", "names no Nova"),
    ("todo", {"assignee": "Torch"}, "assignee", "names no Nova"),
    ("todo", {"assignee": "echo"}, "assignee", "is not torch"),
    ("todo", {"created_at": "yesterday"}, "created_at", "is not an ISO 8601 time in UTC"),
    ("todo", {"created_at": "2026-02-30T10:00:00Z"}, "created_at", "is not an ISO 8601 time"),
    ("todo", {"created_at": "2026-03-01T10:00:00"}, "created_at", "in UTC"),
    ("todo", {"created_at": "2026-03-01T10:00:00+01:00"}, "created_at", "in UTC"),
    ("todo", {"updated_at": "2026-03-01T09:59:59.999Z"}, "updated_at", "is before created_at"),
    ("completed", {"completed_at": "2026-03-01T09:59:59.999Z"}, "completed_at", "is before"),
    ("progress", {"progress_percentage": "101"}, "progress_percentage", "from 0 to 100"),
    ("progress", {"progress_percentage": "-1"}, "progress_percentage", "from 0 to 100"),
    ("progress", {"progress_percentage": "nan"}, "progress_percentage", "from 0 to 100"),
    ("progress", {"progress_percentage": "half"}, "progress_percentage", "from 0 to 100"),
    ("completed", {"results": "exit code 0"}, "results", "is not JSON"),
    ("completed", {"results": "NaN"}, "results", "is not JSON"),
    ("completed", {"results": "[" * 100_000}, "results", "is not JSON"),
    ("completed", {"metrics": "{"}, "metrics", "is not JSON"),
    ("completed", {"outcome": "It failed."}, "outcome", "is not a word"),
]


@pytest.mark.parametrize(
    ("kind", "changes", "field", "rule"),
    BROKEN,
    ids=[f"{kind}-{field}-{number}" for number, (kind, _, field, _) in enumerate(BROKEN)],
)
def test_a_broken_rule_is_named_with_its_field(
    kind: Kind, changes: dict[str, str], field: str, rule: str
) -> None:
    """Whoever reads the refusal knows what to mend."""
    changed = RECORDS[kind][0] | changes
    record = {name: value for name, value in changed.items() if value != "\0gone"}
    with pytest.raises(ProtocolViolation) as caught:
        validate(kind, record, "torch")
    assert caught.value.field == field
    assert rule in caught.value.rule
    assert len(str(caught.value)) < 300
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_protocols_words_are_the_models() -> None:
    """The validator is light and spells statuses and priorities by itself; they are the same."""
    assert {status.value for status in model.Status} == STATUSES
    assert {priority.value for priority in model.Priority} == PRIORITIES
    assert frozenset().union(*STATUSES_OF.values()) == STATUSES


def test_one_record_of_a_task_is_its_first() -> None:
    """A task taken up again is recorded where it was created, and is told from that."""
    assert is_first("todo", CREATED)
    assert not is_first("todo", CREATED | {"update": "taken up again"})
    assert not is_first("progress", CREATED)


def test_compliance_is_valid_by_all() -> None:
    """Without any record there is no figure, rather than a made-up one."""
    assert Compliance(3, 4).as_json() == {"valid": 3, "all": 4, "compliance": 0.75}
    assert Compliance(0, 0).as_json() == {"valid": 0, "all": 0, "compliance": None}


def test_task_streams_are_known_by_name() -> None:
    """Only they are checked; that a name is no Nova's is for the records to be refused by."""
    assert stream_of("nova.tasks.torch.todo") == Stream("nova.tasks.torch.todo", "todo", "torch")
    assert stream_of("nova.tasks.a.todo.progress") == Stream(
        "nova.tasks.a.todo.progress", "progress", "a.todo"
    )
    assert stream_of("nova.tasks.torch") is None
    assert stream_of("nova.tasks.torch.todos") is None
    assert stream_of("nova-tasks-torch-todo") is None


def test_what_is_no_text_is_a_violation() -> None:
    """Anyone may write bytes to a stream, and nobody's reader may fail by it."""
    fault = judge(Stream("s", "todo", "torch"), b"1-1", {b"\xff": b"x"})
    assert fault == {
        "stream": "s",
        "id": "1-1",
        "field": "record",
        "rule": "is not UTF-8: b'\\xff'",
    }
