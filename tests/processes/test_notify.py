"""What a service manager is told, and that nothing of it can hurt the fleet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from service_manager import service_manager
from waiting import wait_until

from novawf.processes.notify import (
    STATUS_BYTES,
    VARIABLES,
    Notifier,
    address_of,
    message,
    watchdog_of,
)
from novawf.settings import environment
from novawf.settings import service_manager as given_by_the_manager


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("/run/user/7/notify", "/run/user/7/notify"),
        ("@fleet", "\0fleet"),
        ("", None),
        ("@", None),
        ("relative", None),
        ("vsock:2:1234", None),
    ],
)
def test_only_paths_and_abstract_names_are_sockets_of_ours(name: str, address: str | None) -> None:
    """What systemd would not use on this kind of socket is nobody."""
    assert address_of(name) == address


@pytest.mark.parametrize(
    ("variables", "expected_s"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({}, None),
    ],
    ids=["any process", "this process", "another process", "zero", "no number", "negative", "none"],
)
def test_the_watchdog_is_asked_for_by_a_time_and_meant_for_one_process(
    variables: dict[str, str], expected_s: float | None
) -> None:
    """A child that inherited the variables must not take the watchdog for its own."""
    assert watchdog_of(variables, 7) == expected_s


def test_a_value_cannot_say_a_second_word() -> None:
    """A status that holds a line end must not pass for `READY=1`."""
    assert message(STATUS="late\nREADY=1") == b"STATUS=late READY=1"


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_every_word_arrives_and_a_status_only_when_it_is_new(
    tmp_path: Path, abstract: bool
) -> None:
    """systemd has a socket with a path, containers often an abstract one."""
    name = f"@novawf-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with service_manager(name) as manager:
        notifier = Notifier.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"}, 7)
        assert notifier.watchdog_s == 0.001
        notifier.status("starting")
        notifier.status("starting")
        notifier.ready()
        notifier.beat()
        notifier.extend(1.5)
        notifier.status("é" * STATUS_BYTES)
        notifier.stopping()
        wait_until(lambda: manager.heard("STOPPING=1"))
    assert manager.said == [
        "STATUS=starting",
        "READY=1",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=1500000",
        "STATUS=" + "é" * (STATUS_BYTES // 2),
        "STOPPING=1",
    ]


@pytest.mark.parametrize(
    "name", ["/nonexistent/notify", "@nobody-listens-here", "", "/" + "x" * 300]
)
def test_a_manager_that_is_not_there_is_no_error(name: str) -> None:
    """Telemetry fails open."""
    notifier = Notifier.of({"NOTIFY_SOCKET": name}, 7)
    notifier.status("starting")
    notifier.ready()


def test_without_a_socket_there_is_no_watchdog() -> None:
    """Nobody could hear it."""
    assert Notifier.of({"WATCHDOG_USEC": "1000"}, 7).watchdog_s is None


def test_the_variables_are_for_the_supervisor_alone() -> None:
    """A command that had them could say READY, or quiet the watchdog, for the fleet."""
    variables = {**dict.fromkeys(VARIABLES, "1"), "PATH": "/bin"}
    assert environment(variables) == {"PATH": "/bin"}
    assert given_by_the_manager(variables) == dict.fromkeys(VARIABLES, "1")
