"""`.jsonl`, `.txt`, suffixes and command templates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import InvalidImport
from novawf.tasks.importing import Draft, parse_file, render_command
from novawf.tasks.importing.jsonl import parse_jsonl
from novawf.tasks.importing.lines import parse_lines
from novawf.tasks.importing.plan import make_plan

GOOD = '{"title": "hash", "argv": ["sha256sum", "x"], "priority": "low", "after": ["A-1-2"]}'


def test_a_jsonl_line_keeps_its_fields_as_they_are():
    (draft,) = parse_jsonl(GOOD + "\n\n", "t.jsonl").drafts
    assert draft.fields == {
        "title": "hash",
        "argv": ["sha256sum", "x"],
        "priority": "low",
        "after": ["A-1-2"],
    }
    assert (draft.key, draft.line, draft.title, draft.after) == ("line-1", 1, "hash", ())
    assert draft.priority == "low"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"title": }', "is not JSON: expecting value at column 11"),
        ('{"title": "a"', "is not JSON: expecting ',' delimiter at column 14"),
        ("[1, 2]", "is a JSON array, not an object with the fields of a task"),
        ("null", "is a JSON literal, not an object with the fields of a task"),
        ('{"a": NaN}', "is not JSON: NaN is not a JSON value"),
        ('{"title": "\\ud800"}', "holds half a surrogate pair, which is not text"),
        ("[" * 100_000, "is nested too deeply"),
        ("\udcff", "is not UTF-8 text"),
    ],
)
def test_a_broken_jsonl_line_refuses_the_file_naming_line_and_fault(line: str, fault: str):
    with pytest.raises(InvalidImport) as refusal:
        parse_jsonl(f"{GOOD}\n{line}\n", "t.jsonl")
    assert str(refusal.value) == f"t.jsonl:2: {fault}"


def test_skip_bad_reports_broken_lines_and_keeps_the_others():
    plan = parse_jsonl(f"{GOOD}\nnot json\n{GOOD}\n", "t.jsonl", skip_bad=True)
    assert [draft.line for draft in plan.drafts] == [1, 3]
    assert [(item.line, item.text) for item in plan.skipped] == [(2, "not json")]


def test_a_line_separator_inside_a_json_string_does_not_end_the_line():
    assert parse_jsonl('{"title": "a\u2028b"}', "t.jsonl").drafts[0].title == "a\u2028b"


def test_a_whole_surrogate_pair_is_text():
    assert parse_jsonl('{"title": "\\ud83d\\ude00"}', "t.jsonl").drafts[0].title == "\U0001f600"


@given(st.text(max_size=40))
def test_any_jsonl_line_is_a_draft_or_one_refusal(line: str):
    try:
        parse_jsonl(line, "t.jsonl")
    except InvalidImport as refusal:
        assert str(refusal).startswith("t.jsonl:")


def test_a_text_file_has_one_task_a_line_without_comments_and_blanks():
    plan = parse_lines("# head\n\n water plants \r\n  # not this\nfeed # the cat\n", "t.txt")
    assert [(d.key, d.title) for d in plan.drafts] == [
        ("line-3", "water plants"),
        ("line-5", "feed # the cat"),
    ]


def test_a_text_line_that_is_no_text_is_refused_or_skipped(tmp_path: Path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(InvalidImport, match=r"t\.txt:2: is not UTF-8 text"):
        parse_file(path)
    plan = parse_file(path, skip_bad=True)
    assert [d.title for d in plan.drafts] == ["fine"]
    assert plan.skipped[0].line == 2
    assert plan.skipped[0].text.isascii()


def test_the_suffix_says_how_a_file_is_read(tmp_path: Path):
    for name, text in (("a.jsonl", GOOD), ("b.TXT", "hash"), ("c.md", "- [ ] hash")):
        (tmp_path / name).write_text(text)
        assert parse_file(tmp_path / name).drafts[0].title == "hash"


@pytest.mark.parametrize("name", ["tasks.csv", "tasks"])
def test_an_unknown_suffix_is_refused_naming_the_known_ones(name: str):
    with pytest.raises(InvalidImport, match=r"known are \.jsonl, \.md, \.txt"):
        parse_file(Path(name))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(InvalidImport, match=r"gone\.md: cannot be read: No such file"):
        parse_file(tmp_path / "gone.md")


def test_a_key_used_twice_is_refused():
    with pytest.raises(InvalidImport, match="f:2: key a is used twice"):
        make_plan([Draft("a", "x", 1), Draft("a", "y", 2)], [], "f")


def test_a_draft_that_waits_for_none_that_is_there_is_refused():
    with pytest.raises(InvalidImport, match="f:1: a waits for b, which is not there"):
        make_plan([Draft("a", "x", 1, after=("b",))], [], "f")


DRAFT = Draft(
    key="1A-2",
    title="Say \"hi\"; rm -rf $HOME {key}",
    line=1,
    priority="high",
    metadata={"parent": "1A"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("template", "argv"),
    [
        ("echo {title}", ["echo", DRAFT.title]),
        ("run --for={key} '{priority} of {parent}'", ["run", "--for=1A-2", "high of 1A"]),
        ("echo {owner} {description}", ["echo", "", ""]),
        ("awk '{{print $1}}'", ["awk", "{print $1}"]),
        ("echo {", ["echo", "{"]),
    ],
)
def test_a_template_is_split_first_and_filled_per_argument_by_no_shell(
    template: str, argv: list[str]
):
    assert render_command(template, DRAFT) == argv


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("echo {titel}", r"placeholder \{titel\} is unknown; known are \{title\}, \{key\}, "),
        ("echo {}", r"placeholder \{\} is unknown"),
        ("echo 'x", "no closing quotation"),
        ("  ", "is empty"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(template: str, fault: str):
    with pytest.raises(InvalidImport, match=fault):
        render_command(template, DRAFT)
