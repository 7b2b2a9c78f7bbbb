"""The diagrams in docs are what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from novawf.workflow import diagram
from novawf.workflow.states import State


def test_the_committed_diagrams_match_their_tables():
    assert diagram.stale() == [], "run python -m novawf.workflow.diagram --write"


def test_every_state_is_drawn():
    text = diagram.render()["workflow-states.md"]
    assert all(f"{state} --> " in text for state in State)


def test_check_reports_drift_and_write_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert diagram.main(["--check", "--directory", str(tmp_path)]) == 1
    assert "phases.md differs" in capsys.readouterr().err
    assert diagram.main(["--write", "--directory", str(tmp_path)]) == 0
    assert diagram.main(["--check", "--directory", str(tmp_path)]) == 0
