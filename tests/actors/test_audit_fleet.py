"""A whole fleet on a store with a password: what it did is on record, and no secret is in sight.

Secrets are planted where they come from in life: the store's password on the supervisor's command
line, an API key in a task's title, argv and output, a variable of the supervisor, an exception.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fleet_process import FleetProcess, clean_environment, running_fleet
from valkey_process import running_valkey
from waiting import wait_until

from novawf.audit.chain import lines_of, verify
from novawf.audit.log import user_name
from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.store.connect import StoreAddress

SUPPORT = Path(__file__).resolve().parents[1] / "support"
PASSWORD = "st0re-pass-w0rd"
KEY = "sk-ant-api03-" + "k3Y" * 12
VALUE = "pl4in-value-of-a-variable"
SETTINGS = {
    "NOVAWF_RAY__DASHBOARD": "false",
    "NOVAWF_EXECUTORS__PYTHON__PATH": str(SUPPORT),
    "NOVAWF_AUDIT__SECRET_ENV": "MY_VARIABLE",
    "MY_VARIABLE": VALUE,
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, valkey_binary: Path) -> Iterator[FleetProcess]:
    """torch and echo, with a spare."""
    directory = tmp_path_factory.mktemp("audited")
    flags = ("--novas", "torch,echo", "--pace", "0", "--momentum", "off", "--spares", "1")
    with running_valkey(valkey_binary, directory, "--requirepass", PASSWORD) as socket:
        store = StoreAddress(path=socket.path, password=PASSWORD).url()
        env = clean_environment(**SETTINGS)
        with running_fleet(directory / "home", "--store", store, *flags, env=env) as running:
            yield running


@pytest.fixture
def shown(
    fleet: FleetProcess, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What a command prints, stdout and stderr, in a shell that has the variable too."""
    monkeypatch.setenv("MY_VARIABLE", VALUE)

    def run(*argv: str) -> str:
        capsysbinary.readouterr()
        run_app(make_app(), PROG, ["--home", str(fleet.home), *argv])
        captured = capsysbinary.readouterr()
        return (captured.out + captured.err).decode()

    return run


def recorded(fleet: FleetProcess) -> list[dict[str, Any]]:
    return [line.record for line in lines_of(fleet.home / "audit") if line.record]


def actions(fleet: FleetProcess) -> set[str]:
    return {record["action"] for record in recorded(fleet)}


def in_sight(texts: dict[str, str], *secrets: str) -> list[tuple[str, str]]:
    return [
        (where, secret) for where, text in texts.items() for secret in secrets if secret in text
    ]


def test_the_stores_password_is_on_no_command_line(fleet: FleetProcess) -> None:
    """Of the supervisor, which was given it there, and of all that it has started."""
    lines = {}
    for process in fleet.tree():
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            lines[str(process.process.pid)] = " ".join(process.process.cmdline())
    assert len(lines) > 5
    assert in_sight(lines, PASSWORD, VALUE) == []
    assert any("--store unix://" in line for line in lines.values())


def test_planted_secrets_are_nowhere_in_sight(
    fleet: FleetProcess, shown: Callable[..., str]
) -> None:
    """Logs, audit, status, why, tasks, output, errors: all of them were fed with some."""
    said = f"echo token={KEY}; echo {VALUE}; echo password=hunter2hunter2 >&2; exit 3"
    failed = fleet.submit(title=f"call {KEY}", argv=["sh", "-c", said], retries=0)
    raising = fleet.submit(
        callable="fleet_jobs:fail_with", args=[f"password=hunter2hunter2 {KEY}"], retries=0
    )
    for task_id in (failed, raising):
        assert fleet.ended(task_id)["status"] == "blocked"
    shown("stop-all", "--reason", f"leaked {KEY} {VALUE}")
    texts = {
        " ".join(argv): shown(*argv)
        for argv in (
            ("status",), ("status", "--json"), ("why",), ("why", failed), ("why", "--json"),
            ("task", failed), ("task", failed, "--json"), ("task", raising), ("tasks", "--json"),
            ("logs", failed), ("logs", failed, "--json"), ("cancel", KEY), ("audit", "tail"),
        )
    }  # fmt: skip
    shown("clear-stop")
    assert "***" in texts[f"logs {failed}"]
    texts |= {
        "the supervisor's lines": fleet.log.read_text(),
        "the supervisor's log": (fleet.home / "logs" / "supervisor.log").read_text(),
        "fleet.json": (fleet.home / "fleet.json").read_text(),
        "the audit": "".join(path.read_text() for path in (fleet.home / "audit").iterdir()),
    }
    assert in_sight(texts, PASSWORD, KEY, VALUE, "hunter2hunter2") == []
    assert KEY in fleet.task(failed)["title"]  # what is stored is what was given


def test_what_people_and_the_supervisor_did_is_on_record(fleet: FleetProcess) -> None:
    """A death with its cause, a spare that took over, orders with their giver, a pause."""
    torch = fleet.nova("torch")
    wait_until(lambda: "spare.ready" in actions(fleet), 60, what="a spare")
    os.kill(torch["pid"], signal.SIGKILL)
    wait_until(
        lambda: {"child.died", "child.restart", "spare.take_over"} <= actions(fleet),
        30,
        what="records of a death",
    )
    fleet.ask(lambda client: client.pause("echo"))
    fleet.ask(lambda client: client.resume("echo"))
    fleet.listening()
    fleet.ask(lambda client: client.crew(user_name()).add(["helix"]))
    wait_until(lambda: "order.add" in actions(fleet), 30, what="the order's record")
    by = {record["action"]: record for record in recorded(fleet)}
    assert set(by) >= {"fleet.begin", "fleet.start", "store.take", "child.start", "child.ready"}
    assert (by["child.died"]["target"], by["child.died"]["who"]) == ("torch", "supervisor")
    assert "SIGKILL" in by["child.died"]["why"] or "9" in by["child.died"]["why"]
    assert (by["nova.pause"]["target"], by["nova.pause"]["who"]) == ("echo", user_name())
    assert (by["novas.add"]["target"], by["order.add"]["why"]) == (["helix"], f"by {user_name()}")
    assert verify(fleet.home / "audit").faults == []


def test_the_end_of_a_fleet_is_on_record(fleet: FleetProcess) -> None:
    """Its last words are written before the process is gone. (The last test: it ends the fleet.)"""
    assert fleet.stop() == 0
    last = [record["action"] for record in recorded(fleet)]
    assert last[-1] == "fleet.stop"
    assert "fleet.drain" in last
    assert verify(fleet.home / "audit").faults == []
