"""Who is to be in a fleet."""

from __future__ import annotations

from typing import Any

import pytest

from novawf.errors import UserError
from novawf.supervision.crew import MOST, changes_to, check_names, members

PROFILES = ("torch", "echo", "helix")


@pytest.mark.parametrize(
    ("to", "present", "wanted"),
    [
        (2, ["a", "b", "c"], ["a", "b"]),
        (3, ["a", "b", "c"], ["a", "b", "c"]),
        (3, ["echo"], ["echo", "torch", "helix"]),
        (5, ["echo", "nova-1"], ["echo", "nova-1", "torch", "helix", "nova-2"]),
        (["b", "a", "b"], ["a", "c"], ["b", "a"]),
    ],
)
def test_a_fleet_is_named_or_counted(to: Any, present: list[str], wanted: list[str]) -> None:
    assert members(to, present, PROFILES) == wanted


def test_those_who_came_last_leave_first() -> None:
    assert changes_to(["a", "d"], ["a", "b", "c"]) == (["d"], ["c", "b"])


@pytest.mark.parametrize("to", [0, -1, MOST + 1, []])
def test_a_fleet_of_none_or_of_far_too_many_is_refused(to: Any) -> None:
    with pytest.raises(UserError, match="scale"):
        members(to, ["a"], PROFILES)


@pytest.mark.parametrize("name", ["To rch", "fleet", "9lives", "", "x" * 33])
def test_what_cannot_name_a_nova_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot name a Nova"):
        check_names([name])
