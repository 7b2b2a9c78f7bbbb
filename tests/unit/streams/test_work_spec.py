"""An entry of the work queue and the task that it means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from novawf.errors import InvalidTask
from novawf.streams.intake import work_spec
from novawf.tasks.model import NOT_YET, TaskSpec

SAMPLES: dict[str, Any] = {
    "title": "Count",
    "description": "[not JSON",
    "executor": "python",
    "callable": "pkg.mod:func",
    "args": [1, "two", None],
    "priority": "high",
    "nova": "torch",
    "after": ["TORCH-1-000001", "FLEET-2-000002"],
    "at": "2030-01-01T00:00:00Z",
    "deadline": "2031-01-01T00:00:00Z",
    "approval": True,
    "accept": ["test", "-e", "out"],
    "estimated_s": 2.5,
    "work_type": "strategic",
    "timeout_s": 9.5,
    "retries": 2,
    "cwd": "/tmp",
    "env": {"A": "b"},
    "dedupe": "once",
    "budget_usd": 0.25,
    "metadata": {"deep": {"er": [1]}},
}
"""A value for each field; those that exclude each other (argv, job) have tests of their own."""


def as_fields(task: dict[str, Any]) -> dict[str, str]:
    """A task as its producer writes it: text as it is, all else as JSON."""
    return {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in task.items()
    }


def test_every_field_of_a_task_can_be_given() -> None:
    """An XADD can say whatever a JSON line can."""
    assert {*SAMPLES, "argv", "job"} | set(NOT_YET) >= set(TaskSpec.model_fields)
    assert work_spec(as_fields(SAMPLES)) == TaskSpec.parse(SAMPLES)


def test_a_command_and_a_built_in_job_can_be_given() -> None:
    """The two other kinds of work."""
    assert work_spec({"title": "t", "argv": '["wc", "-l", "x"]'}).argv == ("wc", "-l", "x")
    assert work_spec({"title": "t", "job": "report"}).chosen_executor == "maintenance"


def test_the_whole_task_may_be_one_json_object() -> None:
    """Under either name."""
    for name in ("task", "json"):
        assert work_spec({name: json.dumps(SAMPLES)}) == TaskSpec.parse(SAMPLES)


def test_one_dependency_may_stand_alone() -> None:
    """A plain id needs no brackets."""
    assert work_spec({"title": "t", "after": "TORCH-1-00002a"}).after == ("TORCH-1-00002a",)


def test_a_check_may_be_text_or_a_list() -> None:
    """As everywhere else."""
    assert work_spec({"title": "t", "accept": "test -e out"}).accept == ("test", "-e", "out")
    assert work_spec({"title": "t", "accept": '["a b"]'}).accept == ("a b",)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "entry: has no fields"),
        ({"argv": '["x"]'}, "title: field required"),
        ({"title": ""}, "title: string should have at least 1 character"),
        ({"title": "t", "colour": "red"}, "colour: is not a field of a task"),
        ({"title": "t", "argv": "wc -l x"}, "argv: is not JSON"),
        ({"title": "t", "argv": '{"a": 1}'}, "argv: is not a JSON list"),
        ({"title": "t", "argv": "[1]"}, "argv.0: input should be a valid string"),
        ({"title": "t", "argv": "[]"}, "argv: is empty"),
        ({"title": "t", "env": "[]"}, "env: is not a JSON object"),
        ({"title": "t", "metadata": "[" * 100_000}, "metadata: is not JSON"),
        ({"title": "t", "retries": "many"}, "retries: input should be a valid integer"),
        ({"title": "t", "timeout_s": "-1"}, "timeout_s: input should be greater than 0"),
        ({"title": "t", "timeout_s": "nan"}, "timeout_s"),
        ({"title": "t", "priority": "urgent"}, "priority"),
        ({"title": "t", "executor": "bash"}, "executor: 'bash' is unknown"),
        ({"title": "t", "nova": "../x"}, "nova: '../x' is no Nova name"),
        ({"title": "t", "nova": "fleet"}, "nova"),
        ({"title": "t", "at": "tomorrow"}, "at: 'tomorrow' is not an ISO 8601 time"),
        ({"title": "t", "budget_usd": "-1"}, "budget_usd: input should be greater than or equal"),
        ({"title": "t", "budget_usd": "0.0000001"}, "budget_usd: 1e-07 has more than six decimals"),
        ({"title": "t", "prompt": "do it"}, "prompt: no agent executor"),
        ({"task": "{}", "title": "t"}, "task: holds the whole task"),
        ({"task": "not json"}, "task: is not JSON"),
        ({"task": "[]"}, "task: is a JSON list, not an object"),
        ({"task": '{"title": "t", "x": 1}'}, "x: is not a field of a task"),
        ({"task": '{"title": "\\ud800"}'}, "title"),
        ({"json": "[" * 100_000}, "is not JSON"),
    ],
)
def test_what_breaks_a_rule_is_refused_by_field(fields: dict[str, str], said: str) -> None:
    """The reason in quarantine tells the producer what to mend."""
    with pytest.raises(InvalidTask) as refused:
        work_spec(fields)
    assert said in str(refused.value)
