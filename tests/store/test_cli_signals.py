"""`wake`, `suggestions` and `schedule` on a real store, with no fleet running."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.client import Fleet
from novawf.clock import ManualClock
from novawf.errors import InvalidSignal, NotFound
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect, connect_sync
from novawf.streams.signal_intake import SignalIntake
from novawf.streams.wake_config import WakeSettings
from novawf.tasks.config import TaskSettings
from novawf.tasks.queue import TaskQueue


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)


Novawf = Callable[..., Answer]


@pytest.fixture
def store(valkey_server: StoreAddress) -> Iterator[Any]:
    client: Any = connect_sync(valkey_server)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def novawf(
    store: Any,
    valkey_server: StoreAddress,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Novawf:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> Answer:
        capsys.readouterr()
        code = run_app(make_app(), PROG, ["--store", valkey_server.url(), *argv])
        return Answer(code, *capsys.readouterr())

    return run


def accept_all(store: StoreAddress, stream: str) -> list[str]:
    """Be the reader of a stream."""

    async def read() -> list[str]:
        redis: Any = connect(store, name="test")
        queue = TaskQueue(redis, ManualClock(), TaskSettings())
        intake = SignalIntake(queue, WakeSettings(), load=lambda: 0.0)
        nova = stream.rpartition(".")[2] if stream.startswith("nova.coordination.") else None
        try:
            entries = await redis.xrange(stream)
            return [await intake.accept(stream, entry, fields, nova) for entry, fields in entries]
        finally:
            await redis.aclose()

    return asyncio.run(read())


# -- wake -----------------------------------------------------------------------------------------


def test_a_signal_waits_in_the_stream_of_its_nova(
    novawf: Novawf, store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    sent = novawf(
        "wake", "torch", "look", "--priority", "high", "--sender", "me", "--json"
    ).document
    assert sent["stream"] == "nova.coordination.torch"
    [(entry_id, fields)] = store.xrange(sent["stream"])
    assert entry_id == sent["id"]
    assert (fields["message"], fields["sender"], fields["priority"]) == ("look", "me", "high")
    [task_id] = accept_all(valkey_server, sent["stream"])
    spec = json.loads(store.hget(keys.TASK_SPEC, task_id))
    assert (spec["title"], spec["nova"], spec["priority"]) == ("look", "torch", "high")


def test_a_command_comes_along(
    novawf: Novawf, store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    sent = novawf("wake", "torch", "urgent", "--json", "--", "ls", "-l", "--json").document
    [task_id] = accept_all(valkey_server, sent["stream"])
    spec = json.loads(store.hget(keys.TASK_SPEC, task_id))
    assert (spec["argv"], spec["cwd"]) == (["ls", "-l", "--json"], str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["torch", ""], "message"),
        (["torch", "x", "--priority", "soon"], "priority"),
        (["echo", "x"], "there is no Nova echo"),
    ],
)
def test_a_signal_that_nobody_could_use_is_not_sent(
    novawf: Novawf, store: Any, argv: list[str], word: str
) -> None:
    store.hset(keys.NOVAS, "torch", "{}")
    answer = novawf("wake", *argv)
    assert answer.code == 2
    assert word in answer.err
    assert len(answer.err.splitlines()) == 1
    assert store.keys() == [keys.NOVAS]


async def test_a_repeat_of_the_client_is_the_same_signal(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """Two entries, as after a lost reply, and one task."""
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        for _ in range(2):
            sent = await fleet.wake(None, "emergency", request_id="r", work={"argv": ["true"]})
        assert sent["stream"] == keys.PRIORITY_ALERTS
        intake = SignalIntake(
            TaskQueue(redis, ManualClock(), TaskSettings()), WakeSettings(), load=lambda: 0.0
        )
        entries = await redis.xrange(keys.PRIORITY_ALERTS)
        first, second = [
            await intake.accept(keys.PRIORITY_ALERTS, entry, fields, None)
            for entry, fields in entries
        ]
        assert first == second
        with pytest.raises(InvalidSignal, match="colour"):
            await fleet.wake("torch", "x", work={"colour": "red"})
        with pytest.raises(InvalidSignal, match="argv"):
            await fleet.wake("torch", "x", work={"argv": []})


def test_suggestions_are_listed(novawf: Novawf, valkey_server: StoreAddress) -> None:
    assert novawf("suggestions").err == "no suggestions\n"
    novawf("wake", "torch", "maybe a cache", "--sender", "bob")
    accept_all(valkey_server, "nova.coordination.torch")
    [row] = novawf("suggestions", "--json").document
    assert (row["text"], row["sender"], row["tier"], row["nova"]) == (
        "maybe a cache", "bob", "low", "torch",
    )  # fmt: skip
    shown = novawf("suggestions").out.splitlines()
    assert shown[0].split()[:3] == ["RECEIVED", "MAY", "START"]
    assert "maybe a cache" in shown[1]


# -- schedule -------------------------------------------------------------------------------------


def test_a_schedule_is_added_listed_and_removed(novawf: Novawf, store: Any, tmp_path: Path) -> None:
    added = novawf(
        "schedule", "add", "nightly", "--cron", "0  3 * * *", "--tz", "Europe/Berlin", "--overlap",
        "queue", "--title", "t", "--priority", "low", "--retries", "0", "--timeout", "5",
        "--env", "A=b", "--accept", "true", "--json", "--", "./backup.sh", "--all",
    ).document  # fmt: skip
    assert added["task"] == {
        "title": "t", "argv": ["./backup.sh", "--all"], "priority": "low", "retries": 0,
        "timeout_s": 5.0, "env": {"A": "b"}, "accept": ["true"], "cwd": str(tmp_path),
    }  # fmt: skip
    assert (added["cron"], added["tz"], added["overlap"]) == ("0 3 * * *", "Europe/Berlin", "queue")
    assert novawf("schedule", "list", "--json").document == [added]
    text = novawf("schedule", "list").out.splitlines()
    assert text[0].startswith("NAME")
    assert text[1].split()[:8] == [
        "nightly",
        "0",
        "3",
        "*",
        "*",
        "*",
        "Europe/Berlin",
        added["next_at"],
    ]
    assert novawf("schedule", "remove", "nightly", "--json").document["removed"]
    assert novawf("schedule", "list", "--json").document == []
    assert novawf("schedule", "list").err == "no schedules\n"


def test_a_callable_can_be_scheduled(novawf: Novawf) -> None:
    added = novawf(
        "schedule",
        "add",
        "x",
        "--cron",
        "* * * * *",
        "--python",
        "a.b:c",
        "--args",
        "[1]",
        "--json",
    ).document
    assert added["task"] == {"title": "a.b:c", "callable": "a.b:c", "args": [1]}


@pytest.mark.parametrize(
    ("argv", "word", "code"),
    [
        (["add", "x", "--cron", "every day", "--", "true"], "cron", 2),
        (["add", "x", "--cron", "0 0 30 2 *", "--", "true"], "cron", 2),
        (["add", "a b", "--cron", "* * * * *", "--", "true"], "name", 2),
        (["add", "x", "--cron", "* * * * *", "--tz", "Mars", "--", "true"], "tz", 2),
        (["add", "x", "--cron", "* * * * *", "--overlap", "no", "--", "true"], "overlap", 2),
        (["add", "x", "--cron", "* * * * *"], "argv", 2),
        (["add", "x", "--", "true"], "--cron", 2),
        (["add", "x", "--cron", "* * * * *", "--nova", "echo", "--", "true"], "echo", 2),
        (["remove", "x"], "no schedule x", 2),
        (["add", "there", "--cron", "* * * * *", "--", "false"], "something else", 1),
    ],
)
def test_what_is_no_schedule_is_refused_in_one_line(
    novawf: Novawf, store: Any, argv: list[str], word: str, code: int
) -> None:
    store.hset(keys.NOVAS, "torch", "{}")
    assert novawf("schedule", "add", "there", "--cron", "* * * * *", "--", "true").code == 0
    before = store.hgetall(keys.SCHEDULES)
    answer = novawf("schedule", *argv)
    assert (answer.code, answer.out) == (code, "")
    assert word in answer.err
    assert len(answer.err.splitlines()) == 1
    assert store.hgetall(keys.SCHEDULES) == before


def test_a_schedule_can_be_replaced(novawf: Novawf) -> None:
    novawf("schedule", "add", "x", "--cron", "* * * * *", "--", "true")
    novawf("schedule", "add", "x", "--cron", "0 3 * * *", "--replace", "--", "true")
    [kept] = novawf("schedule", "list", "--json").document
    assert kept["cron"] == "0 3 * * *"


def test_the_common_options_are_understood_everywhere(
    store: Any, valkey_server: StoreAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the group, after it, and after its command."""
    url = valkey_server.url()
    for argv in (
        ["--store", url, "--json", "schedule", "list"],
        ["schedule", "--store", url, "--json", "list"],
        ["schedule", "list", "--store", url, "--json"],
    ):
        assert run_app(make_app(), PROG, argv) == 0
        assert json.loads(capsys.readouterr().out) == []


async def test_the_client_keeps_schedules(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        work = {"title": "x", "argv": ["true"]}
        kept = await fleet.schedule("x", "*/5 * * * *", work, tz="UTC")
        assert await fleet.schedules() == [kept]
        await fleet.unschedule("x")
        with pytest.raises(NotFound):
            await fleet.unschedule("x")
