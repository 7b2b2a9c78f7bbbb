"""What goes to the store of a Nova's state: what changed, and all of it in doubt."""

from __future__ import annotations

from novawf.tasks.kept_state import FULL_EVERY, KeptState

STATE = ["a", "1", "b", "2", "task_in_hand", ""]
LATER = ["a", "1", "b", "3", "task_in_hand", ""]


def call(kept: KeptState, state: list[str], answered: bool = True) -> list[str]:
    number, sent = kept.begin(state)
    if answered:
        kept.answered(number, state)
    return list(sent)


def test_the_first_call_sends_all() -> None:
    assert call(KeptState(), STATE) == STATE


def test_then_only_what_changed_and_what_the_scripts_write_themselves() -> None:
    kept = KeptState()
    call(kept, STATE)
    assert call(kept, LATER) == ["b", "3", "task_in_hand", ""]
    assert call(kept, LATER) == ["task_in_hand", ""]


def test_after_a_call_without_an_answer_all_is_sent() -> None:
    kept = KeptState()
    call(kept, STATE)
    call(kept, LATER, answered=False)
    assert call(kept, LATER) == LATER


def test_an_answer_that_was_overtaken_proves_nothing() -> None:
    kept = KeptState()
    first, _ = kept.begin(STATE)
    second, sent = kept.begin(LATER)
    assert list(sent) == LATER
    kept.answered(second, LATER)
    kept.answered(first, STATE)
    assert call(kept, LATER) == ["task_in_hand", ""]


def test_all_is_sent_now_and_then_for_a_key_that_somebody_deleted() -> None:
    kept = KeptState()
    sent = [call(kept, STATE) for _ in range(2 * FULL_EVERY)]
    assert 2 <= sent.count(STATE) <= 4
