"""Text for people: columns line up, and nothing that a task brings controls the terminal."""

from __future__ import annotations

import pytest

from novawf.cli.output import counted, duration, pairs, printable, table


def test_columns_line_up_under_their_headers() -> None:
    text = table(("A", "LONG", "LAST"), [("aaa", 1, "x"), ("b", None, "y z")])
    assert text.splitlines() == ["A    LONG  LAST", "aaa  1     x", "b    -     y z"]


def test_pairs_line_up() -> None:
    assert pairs([("a", 1), ("long", "x")]) == "a     1\nlong  x"


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    assert printable("a\x1b[31mb\nc") == "a [31mb c"


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (180, "3 min"), (18_000, "5.0 h"), (259_200, "3.0 d")]
)
def test_durations_are_told_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_one_is_singular() -> None:
    assert [counted(1, "task"), counted(1200, "task")] == ["1 task", "1,200 tasks"]
