"""Every command that changes something leaves a record; `novawf audit` reads and checks them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkey_process import running_valkey
from waiting import wait_until

from novawf.audit.chain import lines_of, verify
from novawf.audit.log import AuditLog, user_name
from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync
from novawf.telemetry import masking

READ_ONLY = {
    "status", "why", "tasks", "task", "logs", "classify", "suggestions", "compliance",
    "store-url", "safety status", "safety check", "doctor", "schedule list", "audit verify",
    "audit tail", "audit search", "hook check", "hook status",
}  # fmt: skip
"""Commands that change nothing. (`compliance` only counts what has come since.)"""

ELSEWHERE = {
    "up": "the supervisor records its start",
    "down": "tests/processes/test_down.py",
    "add": "needs a supervisor: tests/actors/test_audit_fleet.py, here an order in doubt",
    "remove": "the same",
    "scale": "the same",
    "restart": "the same",
    "budget settle": "needs a reservation: tests/store/test_budget_cli.py shows the command",
    "budget repair": "records what it mended: the same",
    "hook run": "records a hook that it shuts off: tests/processes/test_hook_run.py",
}

CHANGES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "submit": (("submit", "--title", "t", "--", "true"), "task.submit", ""),
    "import": (("import", "jobs.txt", "--command", "echo {title}"), "tasks.import", "jobs.txt"),
    "cancel": (("cancel", "PENDING"), "task.cancel", "PENDING"),
    "retry": (("retry", "BLOCKED"), "task.retry", "BLOCKED"),
    "approve": (("approve", "AWAITING"), "task.approve", "AWAITING"),
    "stop-all": (("stop-all", "--reason", "drill"), "fleet.stop_all", "fleet"),
    "clear-stop": (("clear-stop",), "fleet.clear_stop", "fleet"),
    "pause": (("pause",), "fleet.pause", "fleet"),
    "resume": (("resume",), "fleet.resume", "fleet"),
    "wake": (("wake", "torch", "the disk is full"), "nova.wake", "torch"),
    "archive": (("archive", "--now"), "tasks.archive", "archive"),
    "schedule add": (
        ("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", "true"),
        "schedule.add",
        "nightly",
    ),
    "limits": (("limits", "--reset", "default"), "limits.reset", "default"),
    "hook reset": (("hook", "reset"), "hook.reset", "all"),
    "safety reset": (("safety", "reset", "frosty"), "safety.reset", "frosty"),
    "schedule remove": (("schedule", "remove", "kept"), "schedule.remove", "kept"),
}
"""Command → what is run, the record's action, and how its target ends."""

Novawf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def novawf(
    valkey_server: StoreAddress,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Novawf]:
    """Run a command in this process on an emptied store; exit code, stdout, stderr."""
    client: Any = connect_sync(valkey_server)
    client.flushall()
    client.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))
    masking.forget_named()

    def run(*argv: str) -> tuple[int, str, str]:
        capsysbinary.readouterr()
        code = run_app(make_app(), PROG, ["--store", valkey_server.url(), *argv])
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    yield run
    masking.forget_named()


def recorded(tmp_path: Path) -> list[dict[str, Any]]:
    return [line.record for line in lines_of(tmp_path / "home" / "audit") if line.record]


def commands() -> set[str]:
    """Every command there is, those in groups with the group's name before them."""
    found: set[str] = set()
    app = make_app()
    names = [command.name for command in app.registered_commands]
    found.update(str(name) for name in names)
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        found.update(f"{group.name} {command.name}" for command in inner.registered_commands)
    return found


def test_every_command_is_known_to_change_nothing_or_to_be_recorded() -> None:
    """A command that is added must be put into one of the tables above."""
    known = [READ_ONLY, set(ELSEWHERE), set(CHANGES)]
    assert set.union(*known) == commands()
    assert sum(map(len, known)) == len(commands())


@pytest.mark.parametrize("name", CHANGES)
def test_a_command_that_changes_something_leaves_one_record(
    name: str, novawf: Novawf, tmp_path: Path
) -> None:
    """Who, what, to what, and what came of it."""
    (tmp_path / "jobs.txt").write_text("one\ntwo\n")
    ids = {
        "PENDING": novawf("submit", "--", "true")[1].strip(),
        "BLOCKED": novawf("submit", "--", "false")[1].strip(),
        "AWAITING": novawf("submit", "--approval", "--", "true")[1].strip(),
    }
    assert novawf("cancel", ids["BLOCKED"])[0] == 0
    assert novawf("schedule", "add", "kept", "--cron", "0 3 * * *", "--", "true")[0] == 0
    before = len(recorded(tmp_path))
    argv, action, target = CHANGES[name]
    code, _, err = novawf(*(ids.get(word, word) for word in argv))
    assert (code, err) == (0, "")
    (record,) = recorded(tmp_path)[before:]
    assert record["who"] == user_name()
    assert record["action"] == action
    assert record["target"].endswith(ids.get(target, target))
    assert record["after"] is not None or name == "schedule remove"
    assert verify(tmp_path / "home" / "audit").ok


@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_a_command_that_changes_nothing_leaves_none(
    name: str, novawf: Novawf, tmp_path: Path
) -> None:
    """A trail of looks would hide what matters."""
    task_id = novawf("submit", "--", "true")[1].strip()
    before = len(recorded(tmp_path))
    given = {"task": [task_id], "logs": ["-f", task_id], "classify": ["text"], "why": [task_id]}
    given["hook check"] = [str(tmp_path)]
    if name == "logs":
        given["logs"] = [task_id]  # it has not started: refused, which changes nothing either
    assert novawf(*name.split(), *given.get(name, []))[0] in (0, 1)
    assert len(recorded(tmp_path)) == before


def test_what_is_refused_is_not_recorded(novawf: Novawf, tmp_path: Path) -> None:
    """It has changed nothing."""
    assert novawf("cancel", "TORCH-1760000000-00002a")[0] == 2
    assert novawf("retry", novawf("submit", "--", "true")[1].strip())[0] == 1
    assert [record["action"] for record in recorded(tmp_path)] == ["task.submit"]


def test_an_order_that_nobody_took_is_recorded_as_in_doubt(
    novawf: Novawf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor may take it yet."""
    monkeypatch.setattr("novawf.supervision.orders.TAKEN_WITHIN_S", 0.1)
    assert novawf("scale", "4")[0] == 3
    (record,) = recorded(tmp_path)
    assert (record["action"], record["target"]) == ("novas.scale", 4)
    assert "no supervisor took it" in record["after"]["unknown"]


def test_a_stop_is_told_with_its_reason_and_its_moment(novawf: Novawf, tmp_path: Path) -> None:
    """And the end of it with whether there was one."""
    at_s = json.loads(novawf("stop-all", "--reason", "key leaked", "--json")[1])["acknowledged_at"]
    novawf("clear-stop")
    novawf("clear-stop")
    stop, cleared, again = recorded(tmp_path)
    assert (stop["why"], stop["after"]) == (
        "key leaked",
        {"acknowledged_at": at_s, "drains": False},
    )
    assert (cleared["before"], again["before"]) == ({"stopped": True}, {"stopped": False})


def test_a_home_that_cannot_be_written_to_costs_a_warning(
    novawf: Novawf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The action goes on."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "audit").write_text("in the way")
    assert novawf("stop-all", "--reason", "drill")[0] == 0
    assert "fleet.stop_all was not recorded" in caplog.text


# -- verify, tail, search -------------------------------------------------------------------------


def some_records(tmp_path: Path) -> Path:
    audit = AuditLog(tmp_path / "home")
    audit.record(who="supervisor", action="fleet.start", target="fleet")
    audit.record(who="supervisor", action="child.died", target="torch", why="SIGKILL")
    audit.record(who="me", action="fleet.stop_all", target="fleet", why="Drill")
    return tmp_path / "home" / "audit"


def test_verify_says_that_the_chain_holds(novawf: Novawf, tmp_path: Path) -> None:
    """Also where nothing was recorded yet."""
    assert novawf("audit", "verify")[0] == 0
    directory = some_records(tmp_path)
    code, out, _ = novawf("audit", "verify", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["ok"] is True
    assert (said["records"], said["files"], said["fault"]) == (3, 1, None)
    assert said["directory"] == str(directory)
    assert "the chain holds: 3 records in 1 file" in novawf("audit", "verify")[1]


def test_verify_names_the_first_broken_place(novawf: Novawf, tmp_path: Path) -> None:
    """Exit 1, file, line, and what is wrong there."""
    path = some_records(tmp_path) / "audit-000001.jsonl"
    path.write_text(path.read_text().replace("SIGKILL", "SIGTERM"))
    code, out, _ = novawf("audit", "verify", "--json")
    assert code == 1
    fault = json.loads(out)["fault"]
    assert (fault["file"], fault["line"], fault["kind"]) == (path.name, 2, "hash")
    code, out, _ = novawf("audit", "verify")
    assert code == 1
    assert "THE CHAIN IS BROKEN" in out
    assert "audit-000001.jsonl:2: hash: record 2 was changed" in out


def test_tail_shows_the_last_records_and_a_torn_line(novawf: Novawf, tmp_path: Path) -> None:
    """What it cannot read, it says."""
    assert novawf("audit", "tail")[2] == "no such records\n"
    path = some_records(tmp_path) / "audit-000001.jsonl"
    with path.open("ab") as file:
        file.write(b'{"sequence": 4')
    code, out, err = novawf("audit", "tail", "-n", "2")
    assert code == 0
    assert "child.died" in out
    assert "fleet.start" not in out
    assert "audit-000001.jsonl:4: torn or changed, 14 bytes" in err
    assert [row["sequence"] for row in json.loads(novawf("audit", "tail", "--json")[1])] == [
        1, 2, 3,
    ]  # fmt: skip
    assert novawf("audit", "tail", "-f", "--json")[0] == 2


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (("drill",), [3]),
        (("--who", "supervisor"), [1, 2]),
        (("--action", "fleet"), [1, 3]),
        (("--action", "fleet.st"), []),
        (("--action", "fleet.start"), [1]),
        (("fleet", "--who", "me"), [3]),
        (("--since", "1h"), [1, 2, 3]),
        (("--until", "1h"), []),
        (("--since", "2020-01-01", "--until", "2020-01-02T00:00:00Z"), []),
    ],
)
def test_search_shows_what_fits_all_that_is_given(
    novawf: Novawf, tmp_path: Path, argv: tuple[str, ...], found: list[int]
) -> None:
    """Text in any case, whole verbs, times."""
    some_records(tmp_path)
    code, out, _ = novawf("audit", "search", *argv, "--json")
    assert code == 0
    assert [row["sequence"] for row in json.loads(out)] == found


def test_a_time_that_is_none_is_refused(novawf: Novawf) -> None:
    """One clear line."""
    code, _, err = novawf("audit", "search", "--since", "yesterday")
    assert code == 2
    assert "--since: 'yesterday' is neither" in err


def test_tail_follows(tmp_path: Path) -> None:
    """What is recorded while it waits, until it is interrupted."""
    some_records(tmp_path)
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [*CLI, "--home", str(tmp_path / "home"), "audit", "tail", "-f", "-n", "1"],
            stdout=file, cwd=tmp_path,
        )  # fmt: skip
    try:
        wait_until(lambda: "fleet.stop_all" in out.read_text(), 30)
        AuditLog(tmp_path / "home").record(who="me", action="some.thing")
        wait_until(lambda: "some.thing" in out.read_text(), 10)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


# -- secrets --------------------------------------------------------------------------------------

CLI = [sys.executable, "-c", "from novawf.cli.main import run; run()"]
PASSWORD = "st0re-pass-w0rd"
KEY = "sk-ant-api03-" + "k3Y" * 12
VALUE = "pl4in-value-of-a-variable"


@pytest.fixture
def locked_store(valkey_binary: Path, tmp_path: Path) -> Iterator[StoreAddress]:
    """A store of its own that wants a password."""
    directory = tmp_path / "valkey"
    directory.mkdir()
    with running_valkey(valkey_binary, directory, "--requirepass", PASSWORD) as address:
        yield StoreAddress(path=address.path, password=PASSWORD)


def test_planted_secrets_are_shown_nowhere(
    novawf: Novawf, locked_store: StoreAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store's password, an API key in argv and title, a value of a named variable: by no answer,
    no error, and not in the audit. What is stored stays as it was."""
    monkeypatch.setenv("OPENAI_API_KEY", VALUE)
    shown: list[str] = []

    def said(*argv: str, code: int = 0) -> str:
        done = novawf("--store", locked_store.url(), *argv)
        assert done[0] == code, (argv, done)
        shown.extend(done[1:])
        return done[1]

    task_id = said(
        "submit", "--title", f"call with {KEY}", "--env", f"MY_TOKEN={VALUE}", "--nova", "torch",
    "--description", f"uses {VALUE} and password={PASSWORD}", "--", "run", "--key", KEY,
    ).strip()  # fmt: skip
    said("stop-all", "--reason", f"leaked: {KEY} and {PASSWORD}")
    for argv in (("task", task_id), ("tasks",), ("why",), ("why", task_id), ("status",)):
        said(*argv)
        said(*argv, "--json")
    said("wake", "torch", f"look at {VALUE}")
    said("cancel", f"{KEY}", code=2)
    said("pause", f"{KEY}", code=2)
    said("audit", "tail")
    said("audit", "search", "--json")
    client: Any = connect_sync(locked_store)
    spec = json.loads(client.hget(keys.TASK_SPEC, task_id))
    client.close()
    shown.append((tmp_path / "home" / "audit" / "audit-000001.jsonl").read_text())
    for text in shown:
        for planted in (PASSWORD, KEY, VALUE):
            assert planted not in text
    assert sum("***" in text for text in shown) > 8
    assert spec["title"] == f"call with {KEY}"
    assert spec["argv"][-1] == KEY
    url = novawf("--store", locked_store.url(), "store-url")[1]
    assert PASSWORD in url  # it is what was asked for


def ran(tmp_path: Path, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("NOVAWF_")}
    return subprocess.run(
        [*CLI, "--home", str(tmp_path / "home"), *argv],
        capture_output=True, text=True, cwd=tmp_path, env=env | environ, timeout=60, check=False,
    )  # fmt: skip


def test_errors_about_a_store_do_not_show_its_password(tmp_path: Path) -> None:
    """Out of reach, or no URL at all: in processes as users start them."""
    for url in (f"redis://:{PASSWORD}@127.0.0.1:1", f"redis://:{PASSWORD}/x@127.0.0.1"):
        done = ran(tmp_path, "status", "--store", url)
        assert done.returncode in (2, 3), done
        assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("form", ["separate", "joined", "before the command"])
def test_a_password_on_the_command_line_is_gone_from_the_process_list(
    locked_store: StoreAddress, tmp_path: Path, form: str
) -> None:
    """The same process, and it still finds its store: `submit --wait` waits there."""
    store = locked_store.url()
    flags = {"separate": ["--store", store], "joined": [f"--store={store}"]}.get(form, [])
    before = [] if flags else ["--store", store]
    process = subprocess.Popen(
        [*CLI, "--home", str(tmp_path / "home"), *before, "submit", "--wait", *flags, "--",
         "true", "--store", "x"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        task_id = process.stdout.readline().strip()
        cmdline = Path(f"/proc/{process.pid}/cmdline").read_bytes().split(b"\0")
        assert not any(PASSWORD.encode() in argument for argument in cmdline)
        assert any(locked_store.redacted().encode() in argument for argument in cmdline)
        client: Any = connect_sync(locked_store)
        spec = json.loads(client.hget(keys.TASK_SPEC, task_id))
        client.close()
        assert spec["argv"] == ["true", "--store", "x"]
    finally:
        process.kill()
        process.wait()


def test_the_password_is_on_the_command_line_for_an_instant_only(
    locked_store: StoreAddress, tmp_path: Path
) -> None:
    """Before anything else is done: it is gone while the program still loads."""
    process = subprocess.Popen(
        [*CLI, "--home", str(tmp_path / "home"), "submit", "--wait", "--store",
         locked_store.url(), "--", "true"],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    began = time.monotonic()
    try:
        path = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: PASSWORD.encode() not in path.read_bytes() != b"", 20)
        assert time.monotonic() - began < 20
    finally:
        process.kill()
        process.wait()
