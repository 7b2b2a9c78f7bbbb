"""The drill that people run on their machines holds on this one, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from fleet_process import ROOT, clean_environment

SCRIPT = ROOT / "deploy" / "validate_safety.sh"


def test_every_drill_holds(tmp_path: Path) -> None:
    env = clean_environment(HOME=str(tmp_path), TMPDIR=str(tmp_path))
    ran = subprocess.run(
        [SCRIPT, "--private", "--json"], env=env, cwd=tmp_path,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    found = json.loads(ran.stdout)
    assert [row for row in found["rows"] if not row["ok"]] == []
    assert len(found["rows"]) == 14
    assert (found["ok"], ran.returncode) == (True, 0)
    assert not list(tmp_path.glob("novawf-drill-*"))


def test_without_a_fleet_it_says_so(tmp_path: Path) -> None:
    env = clean_environment(HOME=str(tmp_path))
    ran = subprocess.run(
        [SCRIPT], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 3
    assert "no fleet" in ran.stderr
