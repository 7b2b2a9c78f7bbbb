"""What the command line tells of tasks that have left the store, and of the protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.client import Fleet
from novawf.errors import NotFound
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync

if TYPE_CHECKING:
    from redis.asyncio import Redis


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
    """The emptied store of a fleet that keeps finished tasks for no time at all."""
    client: Any = connect_sync(valkey_server)
    client.flushall()
    said = {"tasks": {"retries": 0, "retention_h": 1e-9, "archive_dir": None}}
    client.hset(keys.FLEET, "document", json.dumps(said))
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
    """Run a command in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> Answer:
        capsysbinary.readouterr()
        code = run_app(make_app(), PROG, ["--store", valkey_server.url(), *argv])
        captured = capsysbinary.readouterr()
        return Answer(code, captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture
def archived(novawf: Novawf) -> str:
    """A task that was cancelled and has left the store."""
    task_id = novawf("submit", "--title", "count", "--", "true").out.strip()
    assert novawf("cancel", task_id).code == 0
    answer = novawf("archive", "--now", "--json")
    assert (answer.code, answer.document["moved"]) == (0, 1)
    return task_id


def test_an_archived_task_is_still_found(novawf: Novawf, archived: str, store: Any) -> None:
    """`task`, `logs`, `tasks --archived` know it; the store does not."""
    assert store.hlen(keys.TASK_STATE) == 0
    view = novawf("task", archived, "--json").document
    assert (view["status"], view["outcome"], view["title"]) == ("blocked", "cancelled", "count")
    assert view["spec"]["argv"] == ["true"]
    assert [event["event"] for event in view["history"]] == ["created", "blocked"]
    assert archived in novawf("task", archived).out
    assert novawf("tasks", "--json").document == []
    for selection in ((), ("--status", "blocked"), ("--nova", "fleet"), ("--limit", "1")):
        rows = novawf("tasks", "--archived", *selection, "--json").document
        assert [row["task_id"] for row in rows] == [archived], selection
    for selection in (("--status", "completed"), ("--nova", "torch")):
        assert novawf("tasks", "--archived", *selection, "--json").document == []
    assert "has not started" in novawf("logs", archived).err


async def test_waiting_for_what_has_left_ends_at_once(
    valkey_server: StoreAddress, redis: Redis, tmp_path: Path
) -> None:
    """A client that comes late hears how the task ended."""
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        task_id = await fleet.submit({"title": "x", "argv": ["true"]})
        await fleet.cancel(task_id)
        said = {"tasks": {"retention_h": 1e-9}}
        await redis.hset(keys.FLEET, "document", json.dumps(said))  # type: ignore[misc]
        assert (await fleet.sweep()).tasks == 1
        assert (await fleet.wait(task_id, timeout_s=5))["outcome"] == "cancelled"
        with pytest.raises(NotFound):
            await fleet.wait("TORCH-1-000000", timeout_s=5)


@pytest.mark.parametrize("verb", ["cancel", "retry", "approve"])
def test_what_has_left_can_only_be_submitted_anew(novawf: Novawf, archived: str, verb: str) -> None:
    """The refusal tells it from a task that never was."""
    answer = novawf(verb, archived)
    assert (answer.code, answer.out) == (1, "")
    assert "ended blocked and has left the store for the archive: submit it anew" in answer.err
    answer = novawf(verb, "TORCH-1-000000")
    assert answer.code == 2
    assert "there is no task TORCH-1-000000" in answer.err


def test_the_archive_is_shown(novawf: Novawf, archived: str, tmp_path: Path) -> None:
    """Where it is, what is in it, and that nothing more is due."""
    answer = novawf("archive", "--json")
    shown = answer.document
    assert shown["directory"] == str(tmp_path / "home" / "archive")
    assert (shown["tasks"], shown["moved"]) == (1, 0)
    (file,) = shown["files"]
    assert file["bytes"] == shown["bytes"] == Path(file["path"]).stat().st_size
    assert "1 task" in novawf("archive", "--now").out


def test_a_directory_of_its_own_is_used(
    novawf: Novawf, archived: str, store: Any, tmp_path: Path
) -> None:
    """`[tasks] archive_dir`, as the running fleet says it."""
    said = {"tasks": {"archive_dir": str(tmp_path / "elsewhere")}}
    store.hset(keys.FLEET, "document", json.dumps(said))
    assert novawf("task", archived).code == 2
    (tmp_path / "home" / "archive").rename(tmp_path / "elsewhere")
    assert novawf("task", archived).code == 0


def test_compliance_is_shown(novawf: Novawf, store: Any) -> None:
    """The figure, and what was wrong with the last record that broke the protocol."""
    answer = novawf("compliance", "--json")
    nothing = {"valid": 0, "all": 0, "compliance": None, "last_violation": None}
    assert (answer.code, answer.document) == (0, nothing)
    novawf("submit", "--", "true")
    assert novawf("compliance", "--json").document["compliance"] == 1.0
    assert "protocol" not in novawf("status").out
    store.xadd(keys.todo("torch"), {"hello": "world"})
    answer = novawf("compliance")
    assert answer.code == 1
    assert "1 of 2 are valid" in answer.out
    assert "task_id: is missing" in answer.out
    assert novawf("status", "--json").document["protocol"] == {
        "valid": 1,
        "all": 2,
        "compliance": 0.5,
    }
    assert "1 of 2 records break it" in novawf("status").out
