"""A child specification is checked before anything starts, and the fault is named."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.errors import InvalidConfig
from novawf.supervision.child_spec import ChildKind, ChildSpec, RestartKind, check_child_specs


def test_sound_specs_pass() -> None:
    check_child_specs(
        [
            ChildSpec("store"),
            ChildSpec("torch", RestartKind.TRANSIENT, 0, ChildKind.SUPERVISOR),
            ChildSpec("probe", RestartKind.TEMPORARY, 0.5),
        ]
    )


def test_no_children_is_sound() -> None:
    check_child_specs([])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id": ""}, ["child 2", "id"]),
        ({"id": None}, ["child 2", "id"]),
        ({"id": "torch", "restart": "always"}, ["'torch'", "restart", "'always'", "permanent"]),
        ({"id": "torch", "kind": "robot"}, ["'torch'", "kind", "'robot'", "worker"]),
        ({"id": "torch", "shutdown_s": -1}, ["'torch'", "shutdown_s", "-1"]),
        ({"id": "torch", "shutdown_s": float("inf")}, ["'torch'", "shutdown_s", "finite"]),
        ({"id": "torch", "shutdown_s": float("nan")}, ["'torch'", "shutdown_s"]),
        ({"id": "store"}, ["'store'", "taken"]),
    ],
    ids=[
        "empty id",
        "no id",
        "unknown restart",
        "unknown kind",
        "negative shutdown",
        "endless shutdown",
        "shutdown not a number",
        "id used twice",
    ],
)
def test_each_fault_is_named_with_its_child(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidConfig) as caught:
        check_child_specs([ChildSpec("store"), ChildSpec(**fields)])
    for word in words:
        assert word in str(caught.value)
