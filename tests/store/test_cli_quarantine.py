"""`novawf tasks --quarantined`: what others put into streams and nobody could use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.client import Fleet
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync

ROWS = [
    {"stream": "s", "id": f"{n}-0", "reason": f"title: {n}\x1b[31m", "at": "2026-01-01T00:00:00Z"}
    for n in range(3)
]


@pytest.fixture
def store(valkey_server: StoreAddress) -> Iterator[Any]:
    client: Any = connect_sync(valkey_server)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def novawf(valkey_server: StoreAddress, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*argv: str) -> tuple[int, str, str]:
        code = run_app(make_app(), PROG, ["--store", valkey_server.url(), *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def refuse(store: Any) -> None:
    for row in ROWS:
        store.xadd(keys.QUARANTINE, {**row, "fields": json.dumps({"title": row["id"]})})


def test_refused_entries_are_listed_with_their_reason(store: Any, novawf: Any) -> None:
    """For people a table that a terminal survives, for programs a list."""
    refuse(store)
    code, out, _ = novawf("tasks", "--quarantined")
    assert code == 0
    assert "\x1b" not in out
    shown = [line.split()[1:3] for line in out.splitlines()[1:]]
    assert shown == [["s", f"{n}-0"] for n in range(3)]
    code, out, _ = novawf("--json", "tasks", "--quarantined", "--limit", "2")
    assert json.loads(out) == [{**row, "fields": {"title": row["id"]}} for row in ROWS[1:]]


def test_nothing_refused_is_an_empty_list(store: Any, novawf: Any) -> None:
    """Not an error, and still one document."""
    assert novawf("--json", "tasks", "--quarantined")[:2] == (0, "[]\n")
    assert "nothing was refused" in novawf("tasks", "--quarantined")[2]


def test_selections_that_mean_nothing_there_are_refused(store: Any, novawf: Any) -> None:
    """Refused entries are no tasks."""
    code, _, said = novawf("tasks", "--quarantined", "--nova", "torch")
    assert code == 2
    assert "--quarantined" in said


async def test_a_program_asks_the_client(store: Any, valkey_server: StoreAddress) -> None:
    """The same rows; a record of others' making does no harm."""
    refuse(store)
    store.xadd(keys.QUARANTINE, {"fields": "not json", "reason": "by hand"})
    async with Fleet.connect(store=valkey_server) as fleet:
        rows = await fleet.quarantined()
    assert [row["reason"] for row in rows][:1] == [ROWS[0]["reason"]]
    assert rows[3] == {"stream": "", "id": "", "reason": "by hand", "at": "", "fields": {}}
