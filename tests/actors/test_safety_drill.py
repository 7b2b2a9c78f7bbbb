"""The drill that people run on their machines holds on this one, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet_process import ROOT, clean_environment

SCRIPT = ROOT / "deploy" / "validate_safety.sh"


@pytest.fixture
def short(tmp_path: Path) -> Iterator[Path]:
    """A directory whose name leaves room for Ray's sockets (107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="drill-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_every_drill_holds(short: Path) -> None:
    env = clean_environment(HOME=str(short), TMPDIR=str(short))
    ran = subprocess.run(
        [SCRIPT, "--private", "--json"], env=env, cwd=short,
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    found = json.loads(ran.stdout)
    assert [row for row in found["rows"] if not row["ok"]] == []
    assert len(found["rows"]) == 14
    assert (found["ok"], ran.returncode) == (True, 0)
    assert not list(short.glob("novawf-drill-*"))


def test_without_a_fleet_it_says_so(tmp_path: Path) -> None:
    env = clean_environment(HOME=str(tmp_path))
    ran = subprocess.run(
        [SCRIPT], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 3
    assert "no fleet" in ran.stderr
