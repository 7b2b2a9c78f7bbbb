"""Markdown check-lists into drafts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import InvalidImport
from novawf.tasks.importing import DONE, Draft, ImportPlan, parse_file
from novawf.tasks.importing.checklist import parse_checklist
from novawf.tasks.importing.outline import CRITERION, METRIC

DATA = Path(__file__).parents[2] / "data"
PENDING = {"1C": "1B", "2B": "2A", "3A": "2B", "3B": "3A", "3C": "3B"}


def read(text: str) -> ImportPlan:
    return parse_checklist(text, "list.md")


def by_key(plan: ImportPlan) -> dict[str, Draft]:
    return {draft.key: draft for draft in plan.drafts}


@pytest.fixture(scope="module")
def tasks() -> ImportPlan:
    return parse_file(DATA / "novaops-tasks-q1-2025.md")


@pytest.fixture(scope="module")
def objectives() -> ImportPlan:
    return parse_file(DATA / "novaops-plan-q1-2025.md")


# -- the NovaOps task list; the figures were counted by hand ---------------------------------------


def test_the_task_list_comes_in_as_10_tasks_with_5_sub_tasks_each(tasks: ImportPlan):
    parents = [draft.key for draft in tasks.drafts if "sub_tasks" in draft.metadata]
    assert parents == ["1A", "1B", "1C", "2A", "2B", "3A", "3B", "3C", "4", "5"]
    children = Counter(d.metadata["parent"] for d in tasks.drafts if "parent" in d.metadata)
    assert children == dict.fromkeys(parents, 5)
    assert len(tasks.drafts) == 60


def test_its_80_dependencies_are_sub_tasks_before_tasks_and_pending_tasks(tasks: ImportPlan):
    for draft in tasks.drafts:
        parent = draft.metadata.get("parent", draft.key)
        expected = [PENDING[parent]] if parent in PENDING else []
        if draft.key == parent:
            expected += [f"{parent}-{n}" for n in range(1, 6)]
        assert list(draft.after) == expected
    assert sum(len(draft.after) for draft in tasks.drafts) == 50 + 5 * 6


def test_its_15_success_metrics_are_reported_and_are_no_tasks(tasks: ImportPlan):
    assert [item.reason for item in tasks.skipped] == [METRIC] * 15
    assert tasks.skipped[0].line == 152
    assert tasks.skipped[0].text == "Atomic memory fully integrated and operational"
    assert tasks.done == 0


def test_its_sections_give_the_priority(tasks: ImportPlan):
    assert Counter(draft.priority for draft in tasks.drafts) == {
        "high": 18,
        "medium": 12 + 12,
        "low": 18,
    }


def test_its_tasks_keep_title_owner_duration_and_words(tasks: ImportPlan):
    task = by_key(tasks)["1A"]
    assert task.title == "Mini-Agent CLI Integration"
    assert task.line == 11
    assert task.owner == "Core + Dev Agent"
    assert task.estimate_s == 5400
    assert task.description.startswith("Integrate atomic memory system into mini-agent CLI,")
    assert task.metadata["owners"] == ["Core", "Dev Agent"]
    assert task.metadata["section"] == "PRIORITY 1: Atomic Memory Integration (4 Hours)"
    assert task.metadata["status"] == "Ready to begin"
    assert task.metadata["dependencies"].startswith("Dev Agent's debugging expertise")
    criteria = by_key(tasks)["1B"].metadata["success_criteria"]
    assert criteria == "Session loads with complete context in <1ms"


def test_an_ongoing_task_has_no_estimate_and_says_so(tasks: ImportPlan):
    task = by_key(tasks)["4"]
    assert task.estimate_s is None
    assert task.metadata["ongoing"] is True


def test_a_sub_task_keeps_code_marks_and_knows_its_task(tasks: ImportPlan):
    item = by_key(tasks)["1A-1"]
    assert item.title == "Modify `cli.py` to import atomic memory module"
    assert (item.metadata["parent"], item.metadata["task"]) == ("1A", "Mini-Agent CLI Integration")
    assert (item.owner, item.line, item.estimate_s) == ("Core + Dev Agent", 17, None)


def test_drafts_come_after_all_that_they_wait_for(tasks: ImportPlan, objectives: ImportPlan):
    for plan in (tasks, objectives):
        seen: set[str] = set()
        for draft in plan.drafts:
            assert seen.issuperset(draft.after)
            seen.add(draft.key)


# -- the NovaOps plan ------------------------------------------------------------------------------


def test_the_plan_comes_in_as_12_objectives_with_5_sub_tasks_each(objectives: ImportPlan):
    parents = [draft for draft in objectives.drafts if "sub_tasks" in draft.metadata]
    assert [draft.key for draft in parents] == [f"objective-{n}" for n in range(1, 13)]
    assert all(draft.metadata["sub_tasks"] == 5 for draft in parents)
    assert len(objectives.drafts) == 72
    assert sum(len(draft.after) for draft in objectives.drafts) == 60
    assert objectives.skipped == ()
    hours = [4, 2, 6, 8, 12, 6, 16, 20, None, 40, 30, 20]
    assert [draft.estimate_s for draft in parents] == [h and h * 3600 for h in hours]


def test_the_horizons_of_the_plan_give_the_priority(objectives: ImportPlan):
    assert Counter(draft.priority for draft in objectives.drafts) == {
        "high": 18,
        "medium": 18,
        "low": 18,
        "background": 18,
    }


# -- any check-list --------------------------------------------------------------------------------


def test_plain_check_boxes_are_tasks_under_any_heading_and_under_none():
    plan = read("- [ ] one\n\n# Chores\n* [ ] two\n1. [ ] three (30 min)\n")
    assert [(d.key, d.title, d.estimate_s) for d in plan.drafts] == [
        ("item-1", "one", None),
        ("item-2", "two", None),
        ("item-3", "three", 1800),
    ]
    assert plan.drafts[1].metadata == {"section": "Chores"}


def test_indented_boxes_are_sub_tasks_of_the_box_above_them():
    plan = read("- [ ] trip\n  - [ ] pack\n    - [ ] socks\n  - [ ] book\n- [ ] rest\n")
    assert {d.key: d.after for d in plan.drafts} == {
        "item-1-1-1": (),
        "item-1-1": ("item-1-1-1",),
        "item-1-2": (),
        "item-1": ("item-1-1", "item-1-2"),
        "item-2": (),
    }
    assert by_key(plan)["item-1-1-1"].metadata["parent"] == "item-1-1"


def test_tabs_indent_too():
    assert by_key(read("- [ ] a\n\t- [ ] b\n"))["item-1"].after == ("item-1-1",)


def test_ticked_boxes_are_left_out_and_counted_and_do_not_shift_keys():
    plan = read("- [x] bought\n- [ ] cook\n- [X] eaten\n")
    assert [d.key for d in plan.drafts] == ["item-2"]
    assert plan.done == 2


def test_what_is_open_below_a_ticked_box_still_holds_up_the_task():
    plan = read("## Task 1: t\n- [x] a\n  - [ ] b\n- [ ] c\n")
    assert by_key(plan)["1"].after == ("1-1-1", "1-2")


@pytest.mark.parametrize("first", ["- [x] a", "**Status**: Done\n- [ ] a", "**Status**: ✅ Done"])
def test_a_task_that_is_done_is_left_out_and_holds_up_nobody(first: str):
    plan = read(f"## Task 1: t\n{first}\n## Task 2: u\n**Status**: Pending Task 1\n")
    assert [(d.key, d.after) for d in plan.drafts] == [("2", ())]
    assert (1, "t", DONE) in plan.skipped


@pytest.mark.parametrize(
    ("words", "waits_for"),
    [
        ("**Status**: Pending Task 1", ("1",)),
        ("**Status**: pending tasks 1, 2 and 3A", ("1", "2", "3A")),
        ("**Status**: Blocked by task 3a.", ("3A",)),
        ("**Status**: Ready after Task 1 & Task 2", ("1", "2")),
        ("**Status:** Waiting for Objective 2", ("2",)),
        ("**Status**: Active, next to Task 1", ()),
        ("**Status**: Pending approval", ()),
        ("**Dependencies**: Task 1, and the results of Task 2", ("1", "2")),
        ("**Dependencies**: 1, 3A", ("1", "3A")),
        ("**Dependencies**: 2 people with access", ()),
        ("**Status**: Pending Task B", ("B",)),
    ],
)
def test_status_and_dependencies_say_what_a_task_waits_for(words: str, waits_for: tuple[str, ...]):
    others = "".join(f"## Task {name}: x\n" for name in ("1", "2", "3A", "B"))
    plan = read(f"{others}## Task 9: t\n{words}\n- [ ] part\n")
    assert by_key(plan)["9"].after == (*waits_for, "9-1")
    assert by_key(plan)["9-1"].after == waits_for


@pytest.mark.parametrize("reference", ["7", "1-3", "1.2"])
def test_a_reference_to_no_task_is_refused_with_its_line(reference: str):
    with pytest.raises(InvalidImport, match=rf"^list.md:3: task 2 waits for task {reference}, wh"):
        read(f"## Task 1: t\n## Task 2: u\n**Status**: Pending Task {reference}\n")


def test_a_circle_is_refused_with_its_line_and_its_members():
    with pytest.raises(InvalidImport, match=r"^list.md:1: 1 waits for itself: 1 after 2 after 1$"):
        read("## Task 1: t\n**Status**: Pending Task 2\n## Task 2: u\n**Status**: after Task 1\n")


def test_a_task_that_waits_for_itself_is_refused():
    with pytest.raises(InvalidImport, match="1 waits for itself: 1 after 1"):
        read("## Task 1: t\n**Status**: Pending Task 1\n- [ ] a\n")


def test_a_task_defined_twice_is_refused_with_both_lines():
    with pytest.raises(InvalidImport, match=r"^list.md:3: task 1A is there already, on line 1$"):
        read("## Task 1A: t\n\n## Task 1a: u\n")


def test_numbered_headings_without_boxes_are_chapters():
    plan = read("## 1. Introduction\nWords.\n### Task 1: real\n- [ ] a\n## 2. Plan\n- [ ] b\n")
    assert [d.key for d in plan.drafts] == ["1-1", "1", "objective-2-1", "objective-2"]


def test_numbers_that_start_anew_in_each_chapter_do_not_clash():
    plan = read("# A\n## 1. x\n- [ ] a\n# B\n## 1. y\n- [ ] b\n")
    assert [d.key for d in plan.drafts if "sub_tasks" in d.metadata] == [
        "objective-1",
        "objective-1-l5",
    ]


def test_headings_below_a_task_belong_to_it():
    text = "## Task 1: t\n#### Steps\n- [ ] a\n#### Success criteria\n- [ ] b\n## Next\n- [ ] c\n"
    plan = read(text)
    assert [d.key for d in plan.drafts] == ["1-1", "1", "item-1"]
    assert [(s.text, s.reason) for s in plan.skipped] == [("b", CRITERION)]


@pytest.mark.parametrize(
    ("section", "priority"),
    [
        ("PRIORITY 0: now", "critical"),
        ("Priority 1", "high"),
        ("PRIORITY 2: x", "medium"),
        ("PRIORITY 3", "low"),
        ("PRIORITY 4", "background"),
        ("COLLABORATIVE TASKS", "medium"),
        ("Long-term vision", "background"),
        ("A prioritised list", "medium"),
    ],
)
def test_the_nearest_section_that_names_a_priority_gives_it(section: str, priority: str):
    assert read(f"# {section}\n### Details\n- [ ] a\n").drafts[0].priority == priority


def test_boxes_in_fenced_code_are_examples():
    plan = read("```md\n- [ ] no\n```\n- [ ] yes\n``` inline ``` text\n- [ ] also\n")
    assert [d.title for d in plan.drafts] == ["yes", "also"]


def test_text_indented_under_a_box_describes_it():
    assert read("- [ ] a\n  first\n  second\n").drafts[0].description == "first\nsecond"


def test_a_description_may_run_over_lines_and_its_end_is_a_blank_line():
    text = "## Task 1: t\n**Description**: one\ntwo\n**Owner**: Ann\n\nthree\n"
    task = read(text).drafts[0]
    assert (task.description, task.owner) == ("one\ntwo\nthree", "Ann")


def test_boxes_that_say_nothing_or_something_unknown_are_reported():
    plan = read("- [ ]\n- [~] maybe\n- [1](link)\n")
    assert plan.drafts == ()
    assert [s.reason for s in plan.skipped] == ["an empty check-box", "unknown mark [~]"]


def test_a_bracket_that_is_no_duration_stays_in_the_title():
    draft = read("- [ ] **Load** it (738 messages)\n").drafts[0]
    assert (draft.title, draft.estimate_s) == ("Load it (738 messages)", None)


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("1.5 hours", 5400), ("2-3 h", 10800), ("1 Day", 28800), ("2 weeks", 288000), ("5m", 300)],
)
def test_durations_are_read_in_the_units_people_write(words: str, seconds: int):
    assert read(f"## Task 1: t ({words})\n").drafts[0].estimate_s == seconds


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path):
    path = tmp_path / "list.md"
    path.write_bytes(b"\xef\xbb\xbf## Task 1: t\r\n- [ ] a\r\n")
    assert [d.title for d in parse_file(path).drafts] == ["a", "t"]


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path):
    path = tmp_path / "list.md"
    path.write_bytes(b"- [ ] fine\n- [ ] \xff\n")
    with pytest.raises(InvalidImport, match=r"list\.md:2: is not UTF-8 text"):
        parse_file(path)


def test_very_deep_nesting_is_no_trouble():
    plan = read("".join(f"{' ' * depth}- [ ] d\n" for depth in range(1500)))
    assert len(plan.drafts) == 1500


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    ["# " + "**a " * 9999, "# a" + " " * 40000 + "b", "# a" + " #" * 20000 + "x", "**a" * 9999,
     "**Owner**: " + " " * 40000 + "a", "**Status**: Pending Task " + "1, " * 9999, "- " * 20000],
)  # fmt: skip
def test_no_line_takes_the_reader_more_than_a_moment(line: str):
    read(f"## 1. t\n{line}\n## Task 1: u\n{line}\n**Status**: Ready\n- [ ] a\n")


_PIECES = [
    "# ", "## Task 1: ", "### Task 2A. ", "## 1. ", "### 1.1 ", "# Success metrics", "# PRIORITY 2",
    "- [ ] ", "  - [x] ", "    * [ ] ", "- [~] ", "**Status**: Pending Task ", "**Owner**: ", "1",
    "2A", "word", "(1 hour)", "(ongoing)", "**", "```", "\n", "\n", "\n", "\t", "\r", "\u2028",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=60).map("".join))
def test_any_text_gives_a_plan_in_order_or_one_refusal(text: str):
    try:
        plan = read(text)
    except InvalidImport as refusal:
        assert str(refusal).startswith("list.md:")
        return
    seen: set[str] = set()
    for draft in plan.drafts:
        assert draft.title
        assert draft.key not in seen
        assert seen.issuperset(draft.after)
        seen.add(draft.key)
