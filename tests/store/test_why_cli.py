"""`novawf why` and the reasons in `status`, on a real store and where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novawf.cli.main import PROG, make_app
from novawf.cli.run import run_app
from novawf.client import Fleet
from novawf.clock import SystemClock, parse_iso
from novawf.processes.home import HomeLock, write_fleet_file
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync
from novawf.workflow.identity import ChildRecord, NovaBeat

Novawf = Callable[..., tuple[int, str, str]]
SHAPE = {"subject", "kind", "reason", "sentence", "released_by", "until", "details"}


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
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Novawf:
    """Run a command in this process, in an empty directory and with a home of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))

    def run(*argv: str) -> tuple[int, str, str]:
        capsysbinary.readouterr()
        code = run_app(make_app(), PROG, list(argv))
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return run


def a_fleet(store: Any, **changes: Any) -> None:
    """Records of a running fleet with one idle torch."""
    clock = SystemClock()
    now = clock.now_ms()
    store.hset(keys.FLEET, "document", json.dumps({"state": "running"}))
    store.hset(keys.GATE, mapping={"verdict": "safe", "valid_until": now + 600_000, **changes})
    record = ChildRecord("nova", 12, True, 0, "running", "2026-11-21T08:00:00.000Z")
    store.hset(keys.CHILDREN, "torch", record.to_json())
    beat = NovaBeat(12, 1, "work_discovery", "work_phase_1", "", 3, now, now, now)
    store.hset(keys.NOVAS, "torch", beat.to_json())


def test_a_task_is_explained_in_one_line_and_what_would_release_it(
    novawf: Novawf, store: Any, valkey_server: StoreAddress
) -> None:
    url = valkey_server.url()
    _, task_id, _ = novawf("--store", url, "submit", "--", "true")
    task_id = task_id.strip()
    code, out, err = novawf("--store", url, "why", task_id)
    assert (code, err) == (0, "")
    assert out == (
        f"{task_id} may not start: no fleet runs on this store.\n"
        "released by: `novawf up` starts one\n"
    )
    a_fleet(store, paused="1")
    code, out, _ = novawf("--store", url, "why", task_id, "--json")
    document = json.loads(out)
    assert code == 0
    assert set(document) == SHAPE
    assert (document["subject"], document["kind"], document["reason"]) == (
        task_id, "task", "paused",
    )  # fmt: skip


def test_a_nova_and_the_fleet_are_explained(
    novawf: Novawf, store: Any, valkey_server: StoreAddress
) -> None:
    a_fleet(store)
    url = valkey_server.url()
    assert novawf("--store", url, "why", "torch")[1].startswith("torch is idle")
    for _ in range(2):
        novawf("--store", url, "submit", "--", "true")
    novawf("--store", url, "submit", "--at", "2999-01-01", "--", "true")
    code, out, _ = novawf("--store", url, "why")
    assert code == 0
    assert out.splitlines()[0].startswith("3 pending tasks wait: ")
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["1", "1", "1"]


def test_an_unknown_name_ends_with_1_and_the_nearest(
    novawf: Novawf, store: Any, valkey_server: StoreAddress
) -> None:
    a_fleet(store)
    code, out, err = novawf("--store", valkey_server.url(), "why", "troch")
    assert (code, out) == (1, "")
    assert err == "novawf: there is no task or Nova troch: did you mean torch?\n"


def test_a_store_that_does_not_answer_is_the_answer(novawf: Novawf, tmp_path: Path) -> None:
    url = StoreAddress.unix(tmp_path / "none.sock").url()
    code, out, err = novawf("--store", url, "why", "torch", "--json")
    document = json.loads(out)
    assert (code, err, document["reason"], document["kind"]) == (3, "", "store_down", "nova")
    assert "does not answer" in document["sentence"]


def test_a_home_without_a_fleet_is_the_answer(novawf: Novawf) -> None:
    code, out, err = novawf("why")
    assert (code, err) == (3, "")
    assert out.startswith("No fleet runs at ")
    assert "novawf up" in out
    assert json.loads(novawf("why", "X-1-000001", "--json")[1])["kind"] == "task"


def leave_behind(home: Path, address: StoreAddress) -> HomeLock:
    """What a supervisor has written into its home; the lock is held while it lives."""
    home.mkdir()
    lock = HomeLock(home)
    lock.acquire()
    document = {"pid": 1, "store_url": address.redacted(), "password_file": None}
    write_fleet_file(home, document)
    return lock


def test_a_killed_fleet_is_explained_from_the_store_it_left_behind(
    novawf: Novawf, store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    a_fleet(store)
    lock = leave_behind(tmp_path / "home", valkey_server)
    assert json.loads(novawf("why", "--json")[1])["reason"] == "idle"
    lock.release()
    code, out, _ = novawf("why", "--json")
    assert (code, json.loads(out)["reason"]) == (0, "no_fleet")
    assert "supervisor is gone" in out


def test_a_killed_fleet_whose_store_is_gone_too_is_no_fleet_and_a_living_one_is_cut_off(
    novawf: Novawf, tmp_path: Path
) -> None:
    lock = leave_behind(tmp_path / "home", StoreAddress.unix(tmp_path / "none.sock"))
    code, out, _ = novawf("why", "--json")
    assert (code, json.loads(out)["reason"]) == (3, "store_down")
    lock.release()
    code, out, _ = novawf("why", "--json")
    assert (code, json.loads(out)["reason"]) == (3, "no_fleet")


async def test_status_says_why_for_the_fleet_and_each_nova(
    store: Any, valkey_server: StoreAddress
) -> None:
    a_fleet(store)
    async with Fleet.connect(store=valkey_server) as fleet:
        await fleet.submit({"title": "x", "argv": ["true"], "at": "2999-01-01T00:00:00Z"})
        status = await fleet.status()
        assert status["fleet"]["why"]["reason"] == "earliest_start"
        until_s = parse_iso(status["fleet"]["why"]["until"])
        assert until_s == pytest.approx(parse_iso("2999-01-01"), abs=0.1)
        assert status["novas"][0]["why"]["reason"] == "idle"
        await fleet.stop_all("drill", by="ann")
        status = await fleet.status()
        for why in (status["fleet"]["why"], status["novas"][0]["why"]):
            assert (why["reason"], why["released_by"]) == ("stopped", "`novawf clear-stop`")


async def test_a_task_that_has_left_the_store_is_explained_from_the_archive(
    store: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        task_id = await fleet.submit({"title": "x", "argv": ["true"]})
        await fleet.cancel(task_id)
        store.hset(keys.FLEET, "document", json.dumps({"tasks": {"retention_h": 1e-9}}))
        assert (await fleet.sweep()).tasks == 1
        found = await fleet.why(task_id)
    assert (found["reason"], found["released_by"]) == ("cancelled", "submit it anew")
    assert "has left the store for the archive" in found["sentence"]
