"""The pages in docs agree with the code, as far as a machine can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from novawf import reference
from novawf.cli.main import make_app

DOCS = reference.DIRECTORY
PAGES = sorted(DOCS.rglob("*.md"))
COMMON = {"--home", "--store", "--json", "--help"}
COMMANDS = get_command(make_app()).commands  # type: ignore[attr-defined]


def test_the_generated_parts_are_current() -> None:
    """Settings, profiles and schema are shown as the code has them."""
    assert reference.stale() == [], f"run {reference.COMMAND}"


def test_check_reports_drift_and_write_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page that was edited by hand between its markers is found and put right."""
    for page in reference.render():
        text = (DOCS / page).read_text()
        (tmp_path / page).write_text(text.replace("| none |", "| edited |", 1))
    assert reference.main(["--check", "--directory", str(tmp_path)]) == 1
    assert "configuration.md differs" in capsys.readouterr().err
    assert reference.main(["--write", "--directory", str(tmp_path)]) == 0
    assert reference.main(["--check", "--directory", str(tmp_path)]) == 0


def test_a_page_without_its_markers_is_refused(tmp_path: Path) -> None:
    """A lost marker must not pass for a page that is current."""
    for page in reference.render():
        (tmp_path / page).write_text("nothing here")
    with pytest.raises(LookupError, match="generated: settings"):
        reference.main(["--check", "--directory", str(tmp_path)])


def test_meanings_and_gaps_name_known_keys() -> None:
    """A key that was renamed or described in its model leaves nothing stale behind."""
    rows = {row.key for row in reference.settings()}
    assert set(reference.MEANINGS) <= rows
    assert rows >= reference.NOT_YET


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file of the tree, and its anchor a heading of that file."""
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{page}: {target}"


def test_every_command_has_its_section() -> None:
    """docs/cli.md describes the commands that exist, and no others."""
    text = (DOCS / "cli.md").read_text()
    assert set(re.findall(r"^## `([a-z-]+)`$", text, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_flag_is_mentioned_in_its_section(name: str) -> None:
    """A flag that is not documented is found only by accident."""
    sections = re.split(r"^## ", (DOCS / "cli.md").read_text(), flags=re.MULTILINE)
    section = next(part for part in sections if part.startswith(f"`{name}`"))
    flags = {
        option
        for parameter in COMMANDS[name].params
        for option in parameter.opts
        if parameter.param_type_name == "option" and option.startswith("--")
    }
    missing = {flag for flag in flags - COMMON if not re.search(rf"{flag}\b", section)}
    assert not missing
