"""The bounded log: what was written is found again, at any size and at any moment."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from novawf.processes.output import BoundedLog, read_since

HEAD, TAIL = 64, 32


def follow(path: str, offset: int) -> tuple[bytes, int]:
    """All there is from `offset` on."""
    seen = b""
    while True:
        data, after = read_since(path, offset, HEAD)
        if after == offset:
            return seen, offset
        seen, offset = seen + data, after


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(min_value=0, max_value=90), max_size=12))
def test_head_and_tail_survive_any_sequence_of_writes(sizes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    log = BoundedLog(str(folder / "log"), HEAD, TAIL)
    whole = bytes(n % 251 for n in range(sum(sizes)))
    at = 0
    for size in sizes:
        log.write(whole[at : at + size])
        at += size
        assert sum(file.stat().st_size for file in folder.iterdir()) <= HEAD + 2 * TAIL
    log.close()
    left_out = len(whole) - HEAD - TAIL
    expected = whole
    if left_out > 0:
        mark = f"\n… {left_out} bytes left out …\n".encode()
        expected = whole[:HEAD] + mark + whole[-TAIL:]
    found = (folder / "log").read_bytes() if whole else b""
    assert found == expected
    assert follow(str(folder / "log"), 0) == (expected, len(whole))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(min_value=1, max_value=TAIL), max_size=12))
def test_a_follower_who_keeps_up_sees_every_byte_once(sizes, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("log") / "log")
    log = BoundedLog(path, HEAD, TAIL)
    whole = bytes(n % 251 for n in range(sum(sizes)))
    seen, at, offset = b"", 0, 0
    for size in sizes:
        log.write(whole[at : at + size])
        at += size
        data, offset = follow(path, offset)
        seen += data
    log.close()
    data, offset = follow(path, offset)
    assert (seen + data, offset) == (whole, len(whole))


def test_nothing_is_opened_before_the_first_byte(tmp_path):
    BoundedLog(str(tmp_path / "log"), HEAD, TAIL).close()
    assert list(tmp_path.iterdir()) == []
    assert read_since(str(tmp_path / "log"), 0, HEAD) == (b"", 0)
