"""Whether a hook may run: the table of its states, and what a file may hold."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.errors import CorruptState
from novawf.hooks.state import (
    Checked,
    HookState,
    admit,
    from_text,
    on_this_boot,
    recovered,
    shut_off,
    to_text,
)
from novawf.hooks.state_files import HookFiles

NOW = 1_000_000


def shut(state: HookState, now_ms: int = NOW, cooldown_s: float = 300.0) -> HookState:
    return shut_off(state, "agent", "why", now_ms=now_ms, at="then", cooldown_s=cooldown_s)


def test_ten_executions_in_a_minute_are_well_and_the_eleventh_is_not() -> None:
    state = HookState("h")
    for at in range(10):
        state, verdict = admit(state, NOW + at * 5999)
        assert verdict.allowed
    state, verdict = admit(state, NOW + 59_999)
    assert not verdict.allowed
    assert verdict.over_limit
    assert state.executions == 10


def test_spread_executions_never_shut_off() -> None:
    """Ten in any minute, for an hour."""
    state = HookState("h")
    for at in range(600):
        state, verdict = admit(state, NOW + at * 6000)
        assert verdict.allowed
    assert len(state.runs) == 10


@given(st.lists(st.integers(0, 20_000), max_size=80), st.integers(1, 10))
def test_no_minute_ever_sees_more_than_the_limit(steps: list[int], most: int) -> None:
    state, now, ran = HookState("h"), NOW, []
    for step in steps:
        now += step
        state, verdict = admit(state, now, most)
        if verdict.allowed:
            ran.append(now)
    assert all(sum(at <= other < at + 60_000 for other in ran) <= most for at in ran)


def test_shut_off_holds_for_the_cooldown_and_not_longer() -> None:
    state = shut(HookState("h"))
    early = recovered(state, NOW + 299_999)
    assert not admit(early, NOW + 299_999)[1].allowed
    assert not admit(early, NOW + 299_999)[1].over_limit
    late = recovered(state, NOW + 300_000)
    assert admit(late, NOW + 300_000)[1].allowed
    assert late.last is not None
    assert late.last.reason == "why"


def test_a_second_sign_does_not_lengthen_a_shut_off() -> None:
    """The warden of another execution may come late: one shut-off, one alert."""
    state = shut(HookState("h"))
    assert shut(state, NOW + 5000) is state


def test_a_reboot_begins_the_cooldown_anew_and_forgets_executions() -> None:
    """Times since another boot say nothing: safety errs on the long side."""
    state, _ = admit(HookState("h", boot="a"), NOW)
    state = shut(state)._replace(boot="a", runs=(NOW,))
    after = on_this_boot(state, 50, "b")
    assert after.shut is not None
    assert after.shut.until_ms == 50 + 300_000
    assert after.runs == ()
    assert on_this_boot(after, 99, "b") is after


def test_a_file_holds_all_there_is() -> None:
    state = shut(HookState("h", "torch", "b", (1, 2), 7, 0, checked=Checked("k", "why")))
    state = recovered(state, NOW + 10**9)
    state = shut(state, NOW + 10**9)
    assert from_text(to_text(state)) == state


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(repr))
def test_garbage_is_refused_with_one_kind_of_error(text: str) -> None:
    with pytest.raises(CorruptState):
        from_text(text)


@pytest.mark.parametrize("field", HookState._fields)
def test_a_field_of_the_wrong_kind_is_refused(field: str) -> None:
    """Also what would only be met hours later, when a limit is compared."""
    document = json.loads(to_text(shut(HookState("h", "n", "b", (1,), 1))))
    with pytest.raises(CorruptState):
        from_text(json.dumps(document | {field: [{"x": 1}]}))


def test_an_alert_is_written_once_wherever_its_writer_was_killed(tmp_path) -> None:
    """State written, alert not; alert written, the note of it not; alert torn."""
    files = HookFiles(str(tmp_path))
    files.prepare()
    state = shut(HookState("h"))
    alerts = tmp_path / "hooks" / "alerts.jsonl"
    with files.hold("h") as held:
        held.write(state)
    # Killed here. The next that comes by tells it:
    with files.hold("h") as held:
        assert held.read() == state
        files.tell(state)
    # Killed here, before the note. The next finds the line:
    with files.hold("h") as held:
        told = held.tell(held.read())
    assert told.shut is not None
    assert told.shut.told
    assert len(files.alerts()) == 1
    # Killed within the line: what is torn is no alert, and the next one is whole.
    alerts.write_bytes(alerts.read_bytes()[:-20])
    files.tell(state)
    assert [alert["id"] for alert in files.alerts()] == [1]


def test_two_novas_with_one_script_are_two_hooks(tmp_path) -> None:
    files = HookFiles(str(tmp_path))
    assert files.path("/x/stop.sh", "torch") != files.path("/x/stop.sh", "echo")


def test_what_nobody_uses_is_cleared_away_and_its_lock_with_it(tmp_path) -> None:
    """Names that never come again (scripts in temporary directories) do not pile up."""
    files = HookFiles(str(tmp_path))
    files.prepare()
    for name in ("old", "new"):
        with files.hold(name) as held:
            held.write(HookState(name))
    os.utime(files.path("old"), (0, 0))
    files.clear_away(Path(files.path("new")).stat().st_mtime)
    assert files.paths() == [files.path("new")]
    assert not Path(files.path("old") + ".lock").exists()
    with files.hold("old") as held:  # who comes again begins anew
        assert held.read() == HookState("old")


def test_who_waited_for_a_lock_that_was_cleared_away_takes_the_new_one(tmp_path) -> None:
    """Else two would hold the same hook."""
    files = HookFiles(str(tmp_path))
    files.prepare()
    lock = Path(files.path("h") + ".lock")
    taken = threading.Event()

    def wait() -> None:
        with files.hold("h"):
            taken.set()
            assert lock.exists()

    with files.hold("h"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        lock.unlink()
    waiter.join(20)
    assert taken.is_set()
