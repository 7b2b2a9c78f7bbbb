"""What is known of an end, and what it is called."""

from __future__ import annotations

import signal

import pytest

from novawf.supervision.causes import COUNTED, Cause, Evidence, cause_of


@pytest.mark.parametrize(
    ("evidence", "cause", "said"),
    [
        (Evidence(), Cause.CRASH, "process died"),
        (Evidence(signal=11), Cause.SIGNAL, "killed by SIGSEGV"),
        (Evidence(signal=9), Cause.SIGNAL, "killed by SIGKILL"),
        (Evidence(signal=99), Cause.SIGNAL, "killed by signal 99"),
        (Evidence(signal=9, out_of_memory=True), Cause.OUT_OF_MEMORY, "want of memory"),
        (Evidence(out_of_memory=True), Cause.OUT_OF_MEMORY, "want of memory"),
        (Evidence(signal=11, out_of_memory=True), Cause.SIGNAL, "SIGSEGV"),
        (Evidence(exit_code=3), Cause.CRASH, "exit code 3"),
        (Evidence(error="KeyError: 'x'"), Cause.CRASH, "KeyError: 'x'"),
        (Evidence(error="StoreUnreachable: …", error_kind="store"), Cause.STORE, "Unreachable"),
        (Evidence(error="Fenced: …", error_kind="fenced"), Cause.FENCED, "newer owner"),
        (Evidence(signal=9, ordered="hung"), Cause.HUNG, "hung"),
        (Evidence(signal=9, ordered="user"), Cause.USER, "by order"),
    ],
)
def test_an_end_has_one_cause(evidence: Evidence, cause: Cause, said: str) -> None:
    found, text = cause_of(evidence)
    assert found is cause
    assert said in text


def test_a_signal_is_named_as_people_know_it() -> None:
    for number in signal.Signals:
        assert number.name in cause_of(Evidence(signal=number))[1]


def test_what_is_not_the_childs_fault_does_not_count() -> None:
    assert set(Cause) - COUNTED == {Cause.STORE, Cause.USER}
