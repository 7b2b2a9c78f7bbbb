"""A limit for a drain reaches the process that it is meant for, once, and soon or never."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from novawf.clock import monotonic_s
from novawf.processes.drain_order import NAME, VALID_S, order_drain, take_order


def test_an_order_is_taken_once(tmp_path: Path) -> None:
    """It is for one drain."""
    order_drain(tmp_path, os.getpid(), 90.5)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert take_order(tmp_path) == 90.5
    assert take_order(tmp_path) is None


def test_the_last_order_counts(tmp_path: Path) -> None:
    """Whoever is in more of a hurry gives it again."""
    order_drain(tmp_path, os.getpid(), 600)
    order_drain(tmp_path, os.getpid(), 0)
    assert take_order(tmp_path) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": os.getpid() + 1},
        {"at_s": monotonic_s() - VALID_S - 60},
        {"at_s": monotonic_s() + 3600},
        {"limit_s": -1},
        {"limit_s": float("inf")},
        {"limit_s": float("nan")},
        {"limit_s": "soon"},
        {"limit_s": None},
    ],
    ids=["other process", "old", "future", "negative", "endless", "nan", "text", "none"],
)
def test_what_is_not_meant_or_makes_no_sense_is_dropped(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    """A command that was killed before its signal must not change a later drain."""
    document = {"pid": os.getpid(), "limit_s": 5.0, "at_s": monotonic_s()} | changes
    (tmp_path / NAME).write_text(json.dumps(document))
    assert take_order(tmp_path) is None
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null"])
def test_a_broken_file_is_no_order(tmp_path: Path, text: str) -> None:
    """A drain is never held up by what lies in the home."""
    (tmp_path / NAME).write_text(text)
    assert take_order(tmp_path) is None
    assert not (tmp_path / NAME).exists()
