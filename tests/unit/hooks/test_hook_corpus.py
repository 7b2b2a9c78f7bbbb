"""Hooks as people write them: the bad are found where they are bad, the good are let be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from novawf.hooks.checking import check_paths

CORPUS = Path(__file__).resolve().parents[2] / "data" / "hooks"
EXPECTED = json.loads((CORPUS / "bad" / "expected.json").read_text())
GOOD = sorted(path for path in (CORPUS / "good").iterdir() if path.name != "expected.json")


def test_the_corpus_is_as_large_as_it_claims() -> None:
    """Every bad one has its expectations, and there are enough of both."""
    bad = {path.name for path in (CORPUS / "bad").iterdir()} - {"expected.json"}
    assert bad == set(EXPECTED)
    assert len(bad) >= 60
    assert len(GOOD) >= 45


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_bad_hook_is_found_at_its_line(name: str) -> None:
    """Exactly the expected rules, at exactly the expected lines, and nothing besides."""
    found = check_paths([str(CORPUS / "bad" / name)], "/home/nobody")
    seen = sorted([finding.line, finding.rule] for finding in found)
    assert seen == sorted(EXPECTED[name]), [f.document() for f in found]


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_an_ordinary_hook_raises_no_alarm(path: Path) -> None:
    """Neither errors nor warnings."""
    found = check_paths([str(path)], "/home/nobody")
    # jq, npx and the like need not be on the machine of the test.
    assert [f.document() for f in found if f.rule != "program-missing"] == []
