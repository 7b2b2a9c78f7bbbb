"""What may be submitted. Every refusal is one line that begins with the field at fault."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import InvalidTask
from novawf.tasks.history import DETAIL_CHARACTERS, one_line
from novawf.tasks.model import (
    MAX_PAYLOAD_BYTES,
    NOT_YET,
    TIER_MS,
    Priority,
    TaskSpec,
    parse_json_line,
)

COMMAND: dict[str, Any] = {"title": "t", "argv": ["true"]}
PYTHON: dict[str, Any] = {"title": "t", "callable": "a:b"}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def command(**fields: Any) -> dict[str, Any]:
    return {**COMMAND, **fields}


def python(**fields: Any) -> dict[str, Any]:
    return {**PYTHON, **fields}


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"argv": ["true"]}, "title", "field required"),
        (command(title=""), "title", "at least 1"),
        (command(title="x" * 501), "title", "at most 500"),
        (command(title=5), "title", "string"),
        (command(title=None), "title", "string"),
        (command(title="\ud800"), "title", "string"),
        (command(description="x" * 100_001), "description", "at most"),
        (command(executor="codex"), "executor", "'codex' is unknown; known are command, python"),
        (command(executor=["command"]), "executor", "is unknown"),
        (command(argv=[]), "argv", "is empty"),
        (command(argv=[""]), "argv", "is empty"),
        (command(argv=["  ", "x"]), "argv", "is empty"),
        (command(argv=["a\0b"]), "argv", "NUL"),
        (command(argv=["a", "b\0"]), "argv", "NUL"),
        (command(argv="ls -l"), "argv", "tuple"),
        (command(argv=["sleep", 5]), "argv.1", "string"),
        (command(argv=["x" * 10_000_000]), "task", "is 10,0"),
        (command(metadata={"blob": "x" * 10_000_000}), "task", "the limit is 1,000,000"),
        (python(callable="pkg.mod"), "callable", "not of the form pkg.mod:func"),
        (python(callable="pkg.mod:"), "callable", "not of the form"),
        (python(callable=":func"), "callable", "not of the form"),
        (python(callable="pkg..mod:func"), "callable", "not of the form"),
        (python(callable="pkg/mod:func"), "callable", "not of the form"),
        (python(callable="a:b:c"), "callable", "not of the form"),
        (python(callable="os:system('x')"), "callable", "not of the form"),
        (command(callable="a:b"), "task", "not both"),
        (command(args=[1]), "task", "args belong to a callable"),
        (command(executor="python"), "task", "needs callable"),
        (python(executor="command"), "task", "needs argv"),
        ({"title": "t", "executor": "command"}, "task", "needs argv"),
        (command(priority="urgent"), "priority", "critical"),
        (command(priority="HIGH"), "priority", "high"),
        (command(nova="Torch"), "nova", "is no Nova name"),
        (command(nova="fleet"), "nova", "is no Nova name"),
        (command(nova=""), "nova", "is no Nova name"),
        (command(nova="1st"), "nova", "is no Nova name"),
        (command(nova="a|b"), "nova", "is no Nova name"),
        (command(nova="torch\n"), "nova", "is no Nova name"),
        (command(nova="x" * 33), "nova", "is no Nova name"),
        (command(after="T-1-000001"), "after", "tuple"),
        (command(after=[5]), "after.0", "string"),
        (command(at="tomorrow"), "at", "is not an ISO 8601 time"),
        (command(at="2030-02-30"), "at", "is not an ISO 8601 time"),
        (command(timeout_s=0), "timeout_s", "greater than 0"),
        (command(timeout_s=-1), "timeout_s", "greater than 0"),
        (command(timeout_s=float("nan")), "timeout_s", "input should be"),
        (command(timeout_s=float("inf")), "timeout_s", "less than"),
        (command(timeout_s="soon"), "timeout_s", "number"),
        (command(retries=-1), "retries", "greater than or equal to 0"),
        (command(retries=1001), "retries", "less than or equal to 1000"),
        (command(retries=1.5), "retries", "integer"),
        (command(env={"": "x"}), "env", "cannot be an environment variable"),
        (command(env={"A=B": "x"}), "env", "'A=B'"),
        (command(env={"A": "\0"}), "env", "'A'"),
        (command(env={"A\0": "x"}), "env", "cannot be"),
        (command(env={"A": 1}), "env.A", "string"),
        (command(env=["A=B"]), "env", "dictionary"),
        (command(dedupe=""), "dedupe", "at least 1"),
        (command(dedupe="x" * 501), "dedupe", "at most 500"),
        (command(budget_usd=-0.01), "budget_usd", "greater than or equal to 0"),
        (command(budget_usd=0.1234567), "budget_usd", "more than six decimals"),
        (command(budget_usd=float("nan")), "budget_usd", "than or equal to"),
        (command(budget_usd=float("inf")), "budget_usd", "less than or equal"),
        (command(metadata=[1]), "metadata", "dictionary"),
        (command(colour="red"), "colour", "is not a field of a task"),
        (command(Title="x"), "Title", "is not a field of a task"),
        (command(task_id="T-1-000001"), "task_id", "is not a field of a task"),
        (command(metadata={"deep": nested(300)}), "metadata", "cannot be kept as JSON"),
        (command(metadata={"deep": nested(90_000)}), "metadata", "cannot be kept as JSON"),
        (command(metadata={"text": "\ud800"}), "metadata", "cannot be kept as JSON"),
        (command(metadata={"thing": object()}), "metadata", "cannot be kept as JSON"),
        (python(args=nested(300)), "args", "cannot be kept as JSON"),
        (python(args=["\ud800"]), "args", "cannot be kept as JSON"),
        (python(args=[10**5000]), "args", "cannot be kept as JSON"),
    ],
)
def test_a_broken_rule_is_refused_in_one_line_that_names_the_field(
    fields: dict[str, Any], field: str, rule: str
) -> None:
    with pytest.raises(InvalidTask) as caught:
        TaskSpec.parse(fields)
    assert caught.value.field == field
    assert rule in caught.value.rule
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("field", sorted(NOT_YET))
@pytest.mark.parametrize("value", ["x", 1, 0, "", []])
def test_what_nothing_enforces_yet_is_refused_and_not_ignored(field: str, value: Any) -> None:
    with pytest.raises(InvalidTask, match=f"^{field}: .*leave it out$"):
        TaskSpec.parse(command(**{field: value}))


@pytest.mark.parametrize(
    "fields",
    [
        command(),
        command(argv=["true", ""]),
        command(argv=["a\nb", "ü", "-x"]),
        command(executor="command"),
        command(nova="torch-2_x"),
        command(at="2030-01-01T00:00:00+02:00"),
        command(at="2030-01-01"),
        command(timeout_s=0.001),
        command(retries=0),
        command(budget_usd=0),
        command(budget_usd=0.1),
        command(budget_usd=123456.789012),
        command(retries=1000),
        command(env={"A": "", "B": "x=y"}),
        command(title="x" * 500),
        python(executor="python"),
        python(callable="pkg.mod:Class.method", args=[1, None, {"a": [1.5]}]),
        python(args=nested(200)),
        {"title": "t"},
    ],
)
def test_what_the_rules_allow_is_kept_as_it_was_given(fields: dict[str, Any]) -> None:
    spec = TaskSpec.parse(fields)
    kept = json.loads(spec.to_json())
    assert kept == fields
    assert TaskSpec.parse(kept) == spec


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"title": "t"}, None),
        (command(), "command"),
        (python(), "python"),
        (command(executor="command"), "command"),
    ],
)
def test_the_given_work_implies_its_executor(fields: dict[str, Any], chosen: str | None) -> None:
    assert TaskSpec.parse(fields).chosen_executor == chosen


def test_the_limit_of_the_payload_is_exact() -> None:
    one = len(TaskSpec.parse(command(metadata={"x": "y"})).to_json())
    room = MAX_PAYLOAD_BYTES - one + 1
    assert len(TaskSpec.parse(command(metadata={"x": "y" * room})).to_json()) == MAX_PAYLOAD_BYTES
    with pytest.raises(InvalidTask, match="1,000,001 bytes"):
        TaskSpec.parse(command(metadata={"x": "y" * (room + 1)}))


def test_the_limit_counts_bytes_and_not_characters() -> None:
    with pytest.raises(InvalidTask, match="bytes as JSON"):
        TaskSpec.parse(command(metadata={"x": "ü" * 600_000}))


def test_a_working_directory_must_be_there_where_it_is_checked(tmp_path: Path) -> None:
    TaskSpec.parse(command(cwd=str(tmp_path))).check_here()
    for missing in (tmp_path / "none", Path(__file__)):
        with pytest.raises(InvalidTask, match=r"^cwd: .* is not a directory$"):
            TaskSpec.parse(command(cwd=str(missing))).check_here()


def test_parsing_leaves_what_it_was_given_alone() -> None:
    fields = python(args=[{"deep": [1]}], env={"A": "B"})
    before = copy.deepcopy(fields)
    TaskSpec.parse(fields)
    assert fields == before


def test_every_priority_has_its_tier_and_a_higher_one_goes_first() -> None:
    assert list(TIER_MS) == [priority.value for priority in Priority]
    assert list(TIER_MS.values()) == sorted(set(TIER_MS.values()))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"title": 1,}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"args": [' + "9" * 5000 + "]}", "is not JSON"),
        ("[]", "is a JSON list, not an object"),
        ('"x"', "is a JSON str"),
        ("null", "is a JSON NoneType"),
    ],
)
def test_a_line_that_is_no_object_is_refused(text: str, rule: str) -> None:
    with pytest.raises(InvalidTask, match=f"^task: {rule}"):
        parse_json_line(text)


def test_an_invalid_task_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(InvalidTask("argv", "is empty")))
    assert (error.field, error.rule, str(error)) == ("argv", "is empty", "argv: is empty")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(
    fields=st.dictionaries(
        st.sampled_from([*TaskSpec.model_fields, *NOT_YET, "colour"]), JSON, max_size=6
    )
)
def test_any_json_is_either_a_task_or_refused_in_one_line(fields: dict[str, Any]) -> None:
    try:
        spec = TaskSpec.parse({"title": "t", **fields})
    except InvalidTask as error:
        assert "\n" not in str(error)
    else:
        assert TaskSpec.parse(json.loads(spec.to_json())).to_json() == spec.to_json()


@given(text=st.text(st.characters(), max_size=1500))
def test_free_text_becomes_one_line_that_the_store_can_keep(text: str) -> None:
    line = one_line(text + "\ud800|")
    assert len(line) <= DETAIL_CHARACTERS
    assert "|" not in line
    assert len(line.splitlines()) <= 1
    line.encode()
