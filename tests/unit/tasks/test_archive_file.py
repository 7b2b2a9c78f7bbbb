"""The archive's files: what was kept is found, and a crash at any byte harms nothing before it."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from novawf.errors import Refused
from novawf.tasks.archive_file import Line, append, files, find, read_all, writing

DAY = "2026-03-01"
DATA = f"tasks-{DAY}.jsonl.gz"
INDEX = f"tasks-{DAY}.idx"


def line(number: int, note: str = "") -> Line:
    task_id = f"TORCH-1772359200-{number:06x}"
    return Line(task_id, json.dumps({"task_id": task_id, "note": note}))


def keep(directory: Path, lines: Sequence[Line], day: str = DAY) -> int:
    with writing(directory, "tasks") as mine:
        assert mine
        return append(directory, "tasks", day, lines)


def ids(directory: Path, day: str = DAY) -> list[str]:
    return [doc["task_id"] for doc in read_all(directory / f"tasks-{day}.jsonl.gz")]


def test_each_line_is_found_by_its_id(tmp_path: Path) -> None:
    """Whatever the batch and the day; what is not there is not found."""
    for day, start in ((DAY, 0), ("2026-03-02", 300)):
        for batch in range(3):
            lines = [line(start + 100 * batch + number) for number in range(100)]
            size = keep(tmp_path, lines, day)
            assert size > 0
    for number in range(600):
        found = find(tmp_path, "tasks", line(number).id)
        assert found is not None, number
        assert found["task_id"] == line(number).id
    assert find(tmp_path, "tasks", line(600).id) is None
    assert find(tmp_path, "tasks", line(0).id, since_day="2026-03-02") is None
    kept = files(tmp_path, "tasks")
    assert [(one.day, one.lines) for one in kept] == [(DAY, 300), ("2026-03-02", 300)]
    assert kept[0].bytes == kept[0].path.stat().st_size


def test_the_newest_line_of_an_id_counts(tmp_path: Path) -> None:
    """A crash may have a task kept twice: in one file, in two, in one batch."""
    keep(tmp_path, [line(1, "first"), line(1, "second")])
    assert (find(tmp_path, "tasks", line(1).id) or {})["note"] == "second"
    keep(tmp_path, [line(1, "third"), line(2)])
    assert (find(tmp_path, "tasks", line(1).id) or {})["note"] == "third"
    keep(tmp_path, [line(1, "fourth")], "2026-03-02")
    assert (find(tmp_path, "tasks", line(1).id) or {})["note"] == "fourth"


def test_any_gzip_reads_it(tmp_path: Path) -> None:
    """The format is one that will be read in ten years."""
    for number in range(3):
        keep(tmp_path, [line(number, "two\nlines \u2028 🦊")])
    with gzip.open(tmp_path / DATA, "rt") as text:
        docs = [json.loads(one) for one in text.read().split("\n")[:-1]]
    assert [doc["task_id"] for doc in docs] == [line(number).id for number in range(3)]
    assert docs[0]["note"] == "two\nlines \u2028 🦊"


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """Tasks hold environments, and insights are personal."""
    directory = tmp_path / "archive"
    keep(directory, [line(1)])
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_crash_at_any_byte_of_the_data_costs_no_kept_line(tmp_path: Path) -> None:
    """A torn batch is cut off by the next writer; until then readers stop at it."""
    keep(tmp_path, [line(number) for number in range(3)])
    data, index = (tmp_path / DATA).read_bytes(), (tmp_path / INDEX).read_bytes()
    keep(tmp_path, [line(3), line(4)])
    torn = (tmp_path / DATA).read_bytes()
    for cut in range(len(data) + 1, len(torn)):
        (tmp_path / DATA).write_bytes(torn[:cut])
        (tmp_path / INDEX).write_bytes(index)
        assert ids(tmp_path) == [line(number).id for number in range(3)]
        assert find(tmp_path, "tasks", line(2).id) is not None
        keep(tmp_path, [line(5)])
        assert ids(tmp_path) == [line(number).id for number in (0, 1, 2, 5)]
        assert find(tmp_path, "tasks", line(5).id) is not None
        assert find(tmp_path, "tasks", line(0).id) is not None


def test_a_crash_at_any_byte_of_the_index_costs_no_line(tmp_path: Path) -> None:
    """A whole batch that the index does not know yet is taken into it."""
    keep(tmp_path, [line(0)])
    before = (tmp_path / INDEX).stat().st_size
    keep(tmp_path, [line(1), line(2)])
    data, index = (tmp_path / DATA).read_bytes(), (tmp_path / INDEX).read_bytes()
    for cut in range(before, len(index)):
        (tmp_path / DATA).write_bytes(data)
        (tmp_path / INDEX).write_bytes(index[:cut])
        keep(tmp_path, [line(3)])
        assert ids(tmp_path) == [line(number).id for number in range(4)]
        for number in range(4):
            assert find(tmp_path, "tasks", line(number).id) is not None, (cut, number)
        assert files(tmp_path, "tasks")[0].lines == 4


def test_a_lost_index_is_built_again(tmp_path: Path) -> None:
    """Without it everything is found, slowly; the next writer makes it anew."""
    for number in range(3):
        keep(tmp_path, [line(number)])
    index = (tmp_path / INDEX).read_bytes()
    (tmp_path / INDEX).unlink()
    assert find(tmp_path, "tasks", line(1).id) is not None
    assert find(tmp_path, "tasks", line(9).id) is None
    keep(tmp_path, [])
    assert (tmp_path / INDEX).read_bytes() == index


def test_data_that_was_cut_by_somebody_makes_the_index_anew(tmp_path: Path) -> None:
    """An index that points behind the end is wrong as a whole."""
    keep(tmp_path, [line(0)])
    size = (tmp_path / DATA).stat().st_size
    keep(tmp_path, [line(1)])
    os.truncate(tmp_path / DATA, size + 3)
    keep(tmp_path, [line(2)])
    assert ids(tmp_path) == [line(0).id, line(2).id]
    assert [find(tmp_path, "tasks", line(number).id) is None for number in range(3)] == [
        False,
        True,
        False,
    ]


def test_yesterdays_torn_end_is_mended_today(tmp_path: Path) -> None:
    """After a crash at midnight nobody writes that file again, but people read it."""
    keep(tmp_path, [line(0)])
    with (tmp_path / DATA).open("ab") as data:
        data.write(b"\x1f\x8b torn")
    keep(tmp_path, [line(1)], "2026-03-02")
    with gzip.open(tmp_path / DATA, "rt") as text:
        assert len(text.read().splitlines()) == 1


def test_only_one_may_write(tmp_path: Path) -> None:
    """A second writer hears of it; one that was killed holds up nobody."""
    with writing(tmp_path, "tasks") as first, writing(tmp_path, "tasks") as second:
        assert (first, second) == (True, False)
        with writing(tmp_path, "streams") as other:
            assert other
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from novawf.tasks.archive_file import writing\n"
        f"with writing(Path({str(tmp_path)!r}), 'tasks') as mine:\n"
        "    assert mine\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with writing(tmp_path, "tasks") as mine:
        assert mine


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Errors of the system do not leave this module."""
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Refused, match=r"archive in .*file cannot be used"), writing(file, "tasks"):
        pass
    assert files(tmp_path / "none", "tasks") == []
    assert find(tmp_path / "none", "tasks", "X-1-000000") is None


def test_a_full_disk_leaves_what_was_kept(tmp_path: Path) -> None:
    """The batch that does not fit is refused as a whole, and later ones are kept."""
    keep(tmp_path, [line(0)])
    size = (tmp_path / DATA).stat().st_size
    code = (
        "import json, resource, signal\n"
        "from pathlib import Path\n"
        "from novawf.errors import Refused\n"
        "from novawf.tasks.archive_file import Line, append, writing\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50}, {size + 50}))\n"
        f"with writing(Path({str(tmp_path)!r}), 'tasks'):\n"
        "    try:\n"
        f"        append(Path({str(tmp_path)!r}), 'tasks', {DAY!r}, [Line('x', 'y' * 9)] * 99 "
        "+ [Line(str(n), str(n ** 9)) for n in range(99)])\n"
        "    except Refused as error:\n"
        "        print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in said.stdout
    assert (tmp_path / DATA).stat().st_size == size
    keep(tmp_path, [line(1)])
    assert ids(tmp_path) == [line(0).id, line(1).id]
