"""The command line on a real store: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from valkey_process import running_valkey
from waiting import wait_until

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.clock import SystemClock
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync

NOVAOPS = Path(__file__).parents[1] / "data" / "novaops-tasks-q1-2025.md"
ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from novawf.cli.main import run; run()"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Novawf = Callable[..., Answer]


@pytest.fixture
def store(valkey_server: StoreAddress) -> Iterator[Any]:
    """The emptied store, and a blocking client."""
    client: Any = connect_sync(valkey_server)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def novawf(
    store: Any,
    valkey_server: StoreAddress,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Novawf:
    """Run a command in this process, in an empty directory, with `--store` before its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    def run(*argv: str, at: str | None = None) -> Answer:
        capsysbinary.readouterr()
        code = run_app(make_app(), PROG, ["--store", at or valkey_server.url(), *argv])
        captured = capsysbinary.readouterr()
        return Answer(code, captured.out.decode(), captured.err.decode())

    return run


def submitted(novawf: Novawf, *argv: str) -> str:
    answer = novawf("submit", *argv)
    assert (answer.code, answer.err) == (0, "")
    return answer.out.strip()


def assert_refused(answer: Answer, store: Any, *words: str, code: int = 2) -> None:
    """One clear line, the exit code, and nothing written."""
    assert answer.code == code, answer
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("novawf: ")
    for word in words:
        assert word in answer.err
    assert store.dbsize() == 0


# -- submit ---------------------------------------------------------------------------------------


def test_a_command_is_submitted_with_the_directory_it_was_submitted_from(
    novawf: Novawf, store: Any, tmp_path: Path
) -> None:
    task_id = submitted(novawf, "--", "wc", "-l", "a b.txt", "--json")
    spec = json.loads(store.hget(keys.TASK_SPEC, task_id))
    assert spec["argv"] == ["wc", "-l", "a b.txt", "--json"]
    assert spec["cwd"] == str(tmp_path)
    assert spec["title"] == "wc -l 'a b.txt' --json"


def test_every_flag_reaches_the_task(novawf: Novawf, store: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    first = submitted(novawf, "--", "true")
    task_id = submitted(
        novawf, "--title", "t", "--description", "d", "--priority", "high", "--nova", "torch",
        "--after", first, "--at", "2030-01-01T00:00:00Z", "--timeout", "5", "--retries", "0",
        "--cwd", "sub", "--env", "A=b=c", "--dedupe", "k",
            "--accept", "test -s 'a b'", "--deadline", "2031-01-01T00:00:00Z", "--approval",
            "--budget-usd", "0.5", "--", "true",
    )  # fmt: skip
    kept = json.loads(store.hget(keys.TASK_SPEC, task_id))
    assert len(kept.pop("request")) == 32
    assert kept == {
        "title": "t", "description": "d", "argv": ["true"], "priority": "high", "nova": "torch",
        "after": [first], "at": "2030-01-01T00:00:00Z", "timeout_s": 5.0, "retries": 0,
        "cwd": str(tmp_path / "sub"), "env": {"A": "b=c"}, "dedupe": "k",
        "accept": ["test", "-s", "a b"], "deadline": "2031-01-01T00:00:00Z", "approval": True,
        "budget_usd": 0.5,
    }  # fmt: skip


def test_a_callable_is_submitted_with_its_arguments(novawf: Novawf, store: Any) -> None:
    task_id = submitted(novawf, "--python", "pkg.mod:func", "--args", '[1, "x"]')
    spec = json.loads(store.hget(keys.TASK_SPEC, task_id))
    assert (spec["callable"], spec["args"]) == ("pkg.mod:func", [1, "x"])
    assert "cwd" not in spec


def test_submit_json_prints_the_task_id(novawf: Novawf) -> None:
    assert list(novawf("submit", "--json", "--", "true").document) == ["task_id"]


def test_the_common_flags_are_understood_before_and_after_the_command(
    novawf: Novawf, valkey_server: StoreAddress
) -> None:
    before = novawf("--json", "status")
    after = novawf("status", "--json", "--store", valkey_server.url(), at="unix:///nowhere")
    assert before.document == after.document


def test_submit_wait_tells_by_its_exit_code_that_a_task_was_blocked(
    novawf: Novawf, store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    waiting = subprocess.Popen(
        [*CLI, "submit", "--wait", "--json", "--store", valkey_server.url(), "--", "true"],
        cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_until(lambda: store.hlen(keys.TASK_STATE), 20, "the submission")
        assert novawf("cancel", store.hkeys(keys.TASK_STATE)[0]).code == 0
        out, _ = waiting.communicate(timeout=20)
    finally:
        waiting.kill()
        waiting.wait()
    assert waiting.returncode == 1
    assert json.loads(out)["outcome"] == "cancelled"


BAD_SUBMISSIONS = {
    "unknown flag": (["--titel", "x", "--", "true"], ["--titel", "--title"]),
    "no work": (["--title", "x"], ["argv", "after --"]),
    "empty argv": (["--", ""], ["argv", "empty"]),
    "missing cwd": (["--cwd", "nowhere", "--", "true"], ["cwd", "nowhere"]),
    "negative timeout": (["--timeout", "-1", "--", "true"], ["timeout_s", "greater than 0"]),
    "timeout that is no number": (["--timeout", "soon", "--", "true"], ["--timeout"]),
    "unknown executor": (["--executor", "magic", "--", "true"], ["executor", "magic", "command"]),
    "agent executor": (["--executor", "claude", "--prompt", "x"], ["prompt", "yet"]),
    "acceptance check of no words": (["--accept", "  ", "--", "true"], ["accept", "empty"]),
    "acceptance check torn": (["--accept", "a 'b", "--", "true"], ["accept", "split"]),
    "deadline before its start": (
        ["--at", "2030-01-02", "--deadline", "2030-01-01", "--", "true"],
        ["deadline", "later"],
    ),
    "negative budget": (["--budget-usd", "-1", "--", "true"], ["budget_usd", "greater than"]),
    "budget below a micro-USD": (["--budget-usd", "1e-7", "--", "true"], ["budget_usd", "six"]),
    "budget that is no number": (["--budget-usd", "nan", "--", "true"], ["budget_usd"]),
    "bad Nova name": (["--nova", "To rch", "--", "true"], ["nova", "To rch"]),
    "bad priority": (["--priority", "urgent", "--", "true"], ["priority", "critical"]),
    "bad callable": (["--python", "a b"], ["callable", "pkg.mod:func"]),
    "args that are no array": (["--python", "a:b", "--args", "{}"], ["args", "array"]),
    "args that are no JSON": (["--python", "a:b", "--args", "["], ["args", "JSON"]),
    "bad environment": (["--env", "X", "--", "true"], ["env", "KEY=VALUE"]),
    "bad time": (["--at", "tomorrow", "--", "true"], ["at", "ISO 8601"]),
    "unknown dependency": (["--after", "X-1-000001", "--", "true"], ["after", "X-1-000001"]),
    "10 MB payload": (["--", "x" * 10_000_000], ["10,000,", "1,000,000"]),
}


@pytest.mark.parametrize("case", BAD_SUBMISSIONS)
def test_a_bad_submission_is_one_line_and_nothing_written(
    novawf: Novawf, store: Any, case: str
) -> None:
    argv, words = BAD_SUBMISSIONS[case]
    assert_refused(novawf("submit", *argv), store, *words)


# -- tasks ----------------------------------------------------------------------------------------


def test_a_task_is_listed_shown_cancelled_and_retried(novawf: Novawf) -> None:
    task_id = submitted(novawf, "--title", "Count", "--nova", "torch", "--", "true")
    submitted(novawf, "--", "false")
    assert [row["task_id"] for row in novawf("tasks", "--nova", "torch", "--json").document] == [
        task_id
    ]
    assert "Count" in novawf("tasks").out
    assert novawf("task", task_id, "--json").document["status"] == "pending"

    assert novawf("cancel", task_id, "--json").document["state"] == "blocked"
    again = novawf("cancel", task_id)
    assert (again.code, len(again.err.splitlines())) == (1, 1)
    assert novawf("task", task_id, "--json").document["outcome"] == "cancelled"
    assert len(novawf("tasks", "--status", "blocked", "--json").document) == 1

    assert novawf("retry", task_id).code == 0
    assert novawf("retry", task_id).code == 1
    text = novawf("task", task_id).out
    assert "pending" in text
    assert "retried" in text


@pytest.mark.parametrize("command", ["task", "cancel", "retry", "logs"])
def test_an_unknown_task_is_named(novawf: Novawf, store: Any, command: str) -> None:
    assert_refused(novawf(command, "X-1-000001"), store, "X-1-000001")


def test_an_unknown_status_is_refused_with_the_known(novawf: Novawf, store: Any) -> None:
    assert_refused(novawf("tasks", "--status", "done"), store, "done", "completed")


# -- import ---------------------------------------------------------------------------------------


def test_the_novaops_check_list_comes_in_in_the_order_of_its_dependencies(
    novawf: Novawf, store: Any
) -> None:
    answer = novawf("import", str(NOVAOPS), "--command", "echo {key} {title}", "--json").document
    assert (answer["imported"], answer["without_executor"]) == (60, 0)
    by_key = {row["key"]: row["task_id"] for row in answer["tasks"]}
    specs = {
        key: json.loads(store.hget(keys.TASK_SPEC, task_id)) for key, task_id in by_key.items()
    }
    assert specs["1C-1"]["after"] == [by_key["1B"]]
    assert set(specs["1B"]["after"]) == {by_key[f"1B-{n}"] for n in range(1, 6)}
    assert specs["1A"]["argv"] == ["echo", "1A", specs["1A"]["title"]]
    submitted_so_far: set[str] = set()
    for task_id in answer["task_ids"]:
        assert set(json.loads(store.hget(keys.TASK_SPEC, task_id)).get("after", ())) <= (
            submitted_so_far
        )
        submitted_so_far.add(task_id)
    assert int(store.hlen(keys.WAITING)) > 0
    assert any(item["reason"] == "success metric" for item in answer["skipped"])


def test_a_repeated_import_adds_nothing_unless_told_so(novawf: Novawf, tmp_path: Path) -> None:
    file = tmp_path / "jobs.txt"
    file.write_text("one\ntwo\n")
    first = novawf("import", "jobs.txt", "--command", "echo {title}", "--json").document
    second = novawf("import", str(file), "--command", "echo {title}", "--json").document
    assert (second["imported"], second["existing"]) == (0, 2)
    assert second["task_ids"] == first["task_ids"]
    again = novawf("import", "jobs.txt", "--command", "echo {title}", "--again", "--json").document
    assert again["imported"] == 2


def test_an_import_that_broke_off_is_finished_by_repeating_it(
    novawf: Novawf, store: Any, tmp_path: Path
) -> None:
    (tmp_path / "jobs.txt").write_text("one\ntwo\nthree\n")
    complete = novawf("import", "jobs.txt", "--json").document
    last = complete["task_ids"][-1]
    store.hdel(keys.TASK_STATE, last)
    store.zrem(keys.TASK_ORDER, last)
    for request, task_id in store.hgetall(keys.TASK_REQUESTS).items():
        if task_id == last:
            store.hdel(keys.TASK_REQUESTS, request)
    repeated = novawf("import", "jobs.txt", "--json").document
    assert (repeated["imported"], repeated["existing"]) == (1, 2)


def test_flags_apply_to_every_task_of_a_file(novawf: Novawf, store: Any, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    lines = [{"title": "a", "argv": ["true"]}, {"title": "b", "argv": ["true"], "cwd": "sub"}]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    answer = novawf(
        "import", "jobs.jsonl", "--nova", "echo", "--priority", "low", "--json"
    ).document
    specs = [json.loads(store.hget(keys.TASK_SPEC, task_id)) for task_id in answer["task_ids"]]
    assert [(spec["nova"], spec["priority"]) for spec in specs] == [("echo", "low")] * 2
    assert [spec["cwd"] for spec in specs] == [str(tmp_path), str(tmp_path / "sub")]


def test_a_dry_run_shows_all_and_writes_nothing(novawf: Novawf, store: Any) -> None:
    answer = novawf("import", str(NOVAOPS), "--command", "echo {key}", "--dry-run", "--json")
    assert answer.document["count"] == 60
    assert answer.document["tasks"][0]["argv"] == ["echo", "1A-1"]
    assert store.dbsize() == 0


BAD_LINES = {
    "no JSON": ("{", "not JSON"),
    "unknown field": ('{"title": "x", "tilte": "y"}', "tilte"),
    "empty argv": ('{"title": "x", "argv": []}', "argv"),
    "unknown executor": ('{"title": "x", "executor": "magic"}', "magic"),
    "missing cwd": ('{"title": "x", "argv": ["true"], "cwd": "/nowhere"}', "/nowhere"),
    "cwd that is no text": ('{"title": "x", "argv": ["true"], "cwd": 5}', "cwd"),
    "negative timeout": ('{"title": "x", "argv": ["true"], "timeout_s": -1}', "timeout_s"),
    "unknown dependency": ('{"title": "x", "argv": ["true"], "after": ["X-1-0"]}', "X-1-0"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_broken_line_is_named_and_the_whole_file_refused_unless_told_to_skip(
    novawf: Novawf, store: Any, tmp_path: Path, case: str
) -> None:
    line, word = BAD_LINES[case]
    good = '{"title": "good", "argv": ["true"]}'
    (tmp_path / "jobs.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    assert_refused(novawf("import", "jobs.jsonl"), store, "jobs.jsonl:2:", word)
    answer = novawf("import", "jobs.jsonl", "--skip-bad", "--json").document
    assert answer["imported"] == 2
    assert [item["line"] for item in answer["skipped"]] == [2]


@pytest.mark.parametrize(
    ("file", "word"), [("nothing.txt", "cannot be read"), ("jobs.csv", "suffix")]
)
def test_a_file_that_cannot_be_imported_is_named(
    novawf: Novawf, store: Any, file: str, word: str
) -> None:
    assert_refused(novawf("import", file), store, file, word)


def test_a_bad_template_is_refused(novawf: Novawf, store: Any, tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("one\n")
    assert_refused(novawf("import", "jobs.txt", "--command", "echo {nme}"), store, "{nme}")


def test_tasks_without_anything_to_run_are_pointed_out(novawf: Novawf, tmp_path: Path) -> None:
    (tmp_path / "jobs.txt").write_text("one\n")
    assert "--command" in novawf("import", "jobs.txt").err


# -- control --------------------------------------------------------------------------------------


def test_stop_all_acknowledges_and_clear_stop_lets_go(novawf: Novawf, store: Any) -> None:
    at_s = novawf("stop-all", "--reason", "drill", "--json").document["acknowledged_at"]
    assert abs(at_s - SystemClock().wall_s()) < 5
    assert store.hget(keys.GATE, "stop_reason") == "drill"
    assert "drill" in novawf("status").out
    assert novawf("clear-stop", "--json").document == {"cleared": True}
    assert novawf("clear-stop", "--json").document == {"cleared": False}


def test_pause_and_resume_tell_whether_they_changed_something(novawf: Novawf) -> None:
    assert novawf("pause", "torch", "--json").document["changed"] is True
    assert novawf("pause", "torch", "--json").document["changed"] is False
    assert novawf("resume", "torch", "--json").document["changed"] is True
    assert novawf("pause", "--json").document["nova"] is None
    assert novawf("status", "--json").document["fleet"]["paused"] is True
    assert novawf("resume").out == "the fleet goes on\n"


def test_of_two_halts_the_end_of_one_does_not_claim_that_work_goes_on(novawf: Novawf) -> None:
    novawf("pause")
    novawf("stop-all", "--reason", "drill")
    assert "still stopped: `novawf clear-stop`" in novawf("resume").out
    novawf("pause")
    assert "still paused: `novawf resume`" in novawf("clear-stop").out
    assert novawf("resume").out == "the fleet goes on\n"


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["pause", "To rch"], "To rch"),
        (["stop-all"], "--reason"),
        (["stop-all", "--reason", " "], "--reason"),
        (["stauts"], "status"),
        (["status", "--jsno"], "--json"),
    ],
)
def test_wrong_use_of_a_command_is_one_line(
    novawf: Novawf, store: Any, argv: list[str], word: str
) -> None:
    assert_refused(novawf(*argv), store, word)


def test_limits_and_store_url_are_shown(novawf: Novawf, valkey_server: StoreAddress) -> None:
    assert novawf("limits", "--json").document["minute_left"] == 30
    assert "30 of 30 left" in novawf("limits").out
    assert novawf("store-url").out.strip() == valkey_server.url()


def test_doctor_says_what_it_found_about_the_store(novawf: Novawf) -> None:
    answer = novawf("doctor", "--json")
    checks = {check["check"]: check for check in answer.document["checks"]}
    assert checks["store"]["result"] == "warn"  # this one keeps nothing on disk
    assert "novawf up" in checks["fleet"]["advice"]
    assert answer.code == 0


# -- out of reach ---------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["status"], ["submit", "--", "true"], ["limits"], ["down"]])
def test_without_a_fleet_it_is_exit_code_3_and_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str]
) -> None:
    code = run_app(make_app(), PROG, ["--home", str(tmp_path), *argv])
    captured = capsys.readouterr()
    assert code == 3
    assert captured.err == f"novawf: no fleet runs at {tmp_path}: start one with `novawf up`\n"


def test_a_store_that_does_not_answer_is_exit_code_3(novawf: Novawf, tmp_path: Path) -> None:
    answer = novawf("status", at=f"unix://{tmp_path}/nothing.sock")
    assert (answer.code, len(answer.err.splitlines())) == (3, 1)


def test_an_error_as_json_is_one_document(novawf: Novawf, tmp_path: Path) -> None:
    answer = novawf("status", "--json", at=f"unix://{tmp_path}/nothing.sock")
    assert answer.document["exit_code"] == answer.code == 3
    assert "does not answer" in answer.document["error"]


def test_a_wrong_password_is_told_without_showing_it(
    novawf: Novawf, valkey_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("locked")
    with running_valkey(valkey_binary, directory, "--requirepass", "right") as address:
        answer = novawf("status", at=f"unix://:wrong@{address.path}")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
    assert "password" in answer.err
    assert "wrong" not in answer.err


def test_a_bad_store_url_is_told_without_showing_it(novawf: Novawf, store: Any) -> None:
    answer = novawf("status", at="http://:secret@x")
    assert_refused(answer, store, "redis://")
    assert "secret" not in answer.err


# -- as a program ---------------------------------------------------------------------------------


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "NOVAWF_HOME": str(home / "home"), "PYTHONPATH": str(ROOT)}


def test_a_reader_that_goes_away_is_met_with_silence(
    store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    command = subprocess.Popen(
        [*CLI, "status", "--json", "--store", valkey_server.url()],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    err = command.stderr.read()
    command.stderr.close()
    assert (command.wait(timeout=20), err) == (141, b"")


def test_an_answer_that_cannot_be_written_is_one_line_and_not_a_success(
    store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    for flags in ((), ("--json",)):
        with Path("/dev/full").open("wb") as full:
            command = subprocess.run(
                [*CLI, "status", "--store", valkey_server.url(), *flags], stdout=full,
                stderr=subprocess.PIPE, env=environment(tmp_path), timeout=20, check=False,
            )  # fmt: skip
        assert command.returncode == 1
        assert command.stderr == b"novawf: the answer cannot be written: No space left on device\n"


def test_an_interrupt_ends_a_waiting_command_without_a_traceback(
    store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    command = subprocess.Popen(
        [*CLI, "submit", "--wait", "--store", valkey_server.url(), "--", "true"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    try:
        assert command.stdout is not None
        assert command.stdout.readline().startswith(b"FLEET-")
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=20)
    finally:
        command.kill()
        command.wait()
    assert (command.returncode, err) == (130, b"")


def test_up_becomes_the_supervisor_with_all_its_flags(tmp_path: Path) -> None:
    answer = subprocess.run(
        [*CLI, "--home", str(tmp_path), "up", "--no-such-flag"],
        capture_output=True, text=True, env=environment(tmp_path), cwd=tmp_path, timeout=60,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 2
    assert answer.stderr.startswith("supervisor: unknown option --no-such-flag")


SUPERVISOR = """
import json, os, signal, sys
from pathlib import Path
from novawf.processes.home import HomeLock, write_fleet_file
home = Path(sys.argv[1])
left = [int(sys.argv[2])]
def end(*_):
    left[0] -= 1
    if left[0] == 0:
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
lock = HomeLock(home)
lock.acquire()
write_fleet_file(home, {"pid": os.getpid(), "run_id": "r", "store_url": "unix:///s"})
print("up", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("signals", "flags"), [(1, []), (2, ["--now"])])
def test_down_ends_the_supervisor_that_holds_the_home(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, signals: int, flags: list[str]
) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), str(signals)],
        stdout=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        code = run_app(make_app(), PROG, ["down", "--home", str(tmp_path), "--json", *flags])
        document = json.loads(capsys.readouterr().out)
        assert (code, document["stopped"], document["pid"]) == (0, True, supervisor.pid)
        assert supervisor.wait(timeout=10) == 0
    finally:
        supervisor.kill()
        supervisor.wait()


def test_down_that_waits_in_vain_says_so_and_leaves_the_supervisor_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path), "9"],
        stdout=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    try:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        argv = ["down", "--home", str(tmp_path), "--timeout", "0.1"]
        assert run_app(make_app(), PROG, argv) == 1
        assert "--now" in capsys.readouterr().err
        assert supervisor.poll() is None
    finally:
        supervisor.kill()
        supervisor.wait()


# -- logs -----------------------------------------------------------------------------------------


def set_state(store: Any, task_id: str, *, status: str, attempt: int) -> None:
    """Put a task where a Nova would have put it."""
    parts = store.hget(keys.TASK_STATE, task_id).split("|")
    parts[0], parts[2] = status, str(attempt)
    store.hset(keys.TASK_STATE, task_id, "|".join(parts))


def log_of(tmp_path: Path, task_id: str, attempt: int) -> Path:
    path = tmp_path / "home" / "logs" / "tasks" / f"{task_id}.{attempt}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_logs_print_the_output_of_the_last_attempt_or_of_a_given_one(
    novawf: Novawf, store: Any, tmp_path: Path
) -> None:
    task_id = submitted(novawf, "--", "true")
    set_state(store, task_id, status="completed", attempt=2)
    log_of(tmp_path, task_id, 1).write_bytes(b"first\n")
    log_of(tmp_path, task_id, 2).write_bytes(b"second\xff\n")
    assert novawf("logs", task_id, "--attempt", "1").out == "first\n"
    assert novawf("logs", task_id, "--json").document["output"] == "second\ufffd\n"


def test_logs_of_another_machine_show_the_tail_that_was_stored(novawf: Novawf, store: Any) -> None:
    task_id = submitted(novawf, "--", "true")
    set_state(store, task_id, status="completed", attempt=1)
    store.hset(keys.TASK_RESULT, task_id, json.dumps({"stdout_tail": "the end\n"}))
    assert novawf("logs", task_id).out == "the end\n"


def test_logs_of_a_task_that_has_not_started_say_so(novawf: Novawf) -> None:
    answer = novawf("logs", submitted(novawf, "--", "true"))
    assert (answer.code, len(answer.err.splitlines())) == (1, 1)
    assert "not started" in answer.err


def test_logs_follow_a_task_to_its_end(
    novawf: Novawf, store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    task_id = submitted(novawf, "--", "true")
    follower = subprocess.Popen(
        [*CLI, "logs", "-f", task_id, "--store", valkey_server.url()],
        stdout=subprocess.PIPE, env=environment(tmp_path),
    )  # fmt: skip
    try:
        assert follower.stdout is not None
        with log_of(tmp_path, task_id, 1).open("wb", buffering=0) as log:
            set_state(store, task_id, status="in_progress", attempt=1)
            log.write(b"one\n")
            assert follower.stdout.readline() == b"one\n"
            log.write(b"two\n")
            assert follower.stdout.readline() == b"two\n"
            log.write(b"three\n")
        began_s = time.monotonic()
        set_state(store, task_id, status="completed", attempt=1)
        out, _ = follower.communicate(timeout=20)
        assert out == b"three\n"
        assert time.monotonic() - began_s < 5
    finally:
        follower.kill()
        follower.wait()
    assert follower.returncode == 0
