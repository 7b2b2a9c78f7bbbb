"""`novawf hook run`: ordinary hooks notice nothing; whatever is killed leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hook_world import HookWorld
from waiting import wait_until

from novawf.hooks.state_files import HookFiles
from novawf.processes.identity import process_stat
from novawf.processes.tree import children
from novawf.store import keys
from novawf.store.connect import StoreAddress, connect_sync

REFUSED = 75
LINGERS = 'echo $$ > "$LOG/pid.new"; mv "$LOG/pid.new" "$LOG/pid"; exec sleep 600'


@pytest.fixture
def world(tmp_path: Path) -> HookWorld:
    """A home, a `novawf` and a fake agent."""
    return HookWorld(tmp_path)


def started(world: HookWorld, argv: list[str], **more) -> subprocess.Popen[str]:
    """A guarded hook that runs, once the process that notes its pid is there."""
    process = subprocess.Popen(
        argv, env=world.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )
    wait_until((world.log / "pid").exists, 30.0, "the hook's process")
    return process


ORDINARY = (
    'cat; echo "$1"; exit 0',
    "cat >&2; exit 2",
    'printf "no newline"; exit 7',
    'read -r line; echo "{\\"decision\\": \\"$line\\"}"',
    "head -c 100000 /dev/zero | tr '\\0' x",
    "for i in 1 2 3 4 5 6; do (echo $i; echo e$i >&2); done",
    'sh -c "exit 3"; echo $?; claude --version',
    'test -t 0 || echo piped; pwd; echo "${UNSET-none}"',
    "kill -TERM $$",
    'sleep 0.05 & wait; trap "echo bye" EXIT; exit 4',
)


@pytest.mark.timeout(400)  # 75 s where twenty others share the machine
def test_a_hundred_ordinary_runs_are_untouched(world: HookWorld) -> None:
    """stdout, stderr and how it ends are those of a run without the guard."""
    scripts = []
    for number, text in enumerate(ORDINARY):
        path = world.hook.parent / f"ordinary{number}.sh"
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
        scripts.append(str(path))
    bare = {script: world.run([script, "word"], input="event\n") for script in scripts}

    def once(script: str) -> tuple[int, str, str]:
        done = world.guarded(script, "word", input="event\n")
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(2) as pool:
        seen = list(zip(scripts * 10, pool.map(once, scripts * 10), strict=True))
    assert len(seen) == 100
    for script, result in seen:
        expected = bare[script]
        assert result == (expected.returncode, expected.stdout, expected.stderr)
    assert world.alerts() == []
    assert all(hook["state"] == "on" and hook["executions"] == 10 for hook in world.status())


def test_one_execution_too_many_shuts_it_off(world: HookWorld) -> None:
    """The limit counts executions; refusals and their alert come once."""
    world.write_hook("exit 0")
    codes = [world.guarded(str(world.hook), flags=("--limit", "2")).returncode for _ in range(4)]
    assert codes == [0, 0, REFUSED, REFUSED]
    assert world.lines("runs") == 2
    assert [alert["kind"] for alert in world.alerts()] == ["rate"]
    row = world.status()[0]
    assert row["state"] == "shut_off" and row["until"] and "more than 2 times" in row["reason"]
    assert world.run([str(world.novawf), "hook", "reset", str(world.hook)]).returncode == 0
    assert world.guarded(str(world.hook)).returncode == 0


def test_a_refusal_is_one_line_and_may_block(world: HookWorld) -> None:
    """A gate that has to fail closed asks for exit code 2."""
    done = world.guarded("claude", "-p", "x", flags=("--refused-exit", "2"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert world.lines("sessions") == 0


def test_wrong_usage_is_no_verdict(world: HookWorld) -> None:
    """Exit code 2 would block the agent, or send it on for ever."""
    done = world.guarded("true", flags=("--tiemout", "3"))
    assert (done.returncode, len(done.stderr.splitlines())) == (REFUSED, 1)


@pytest.mark.parametrize(("name", "code"), [("/nowhere/hook.sh", 127), ("/etc/hostname", 126)])
def test_what_cannot_be_executed_ends_as_in_a_shell(world: HookWorld, name: str, code: int) -> None:
    done = world.guarded(name)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1)


def test_a_hook_inside_another_is_refused_and_the_outer_goes_on(world: HookWorld) -> None:
    """Even with a clean environment: the guard above is found by the tree."""
    clean = "env -i HOME=/ PATH=/usr/bin:/bin PYTHONPATH=$PYTHONPATH"
    inner = f"{clean} {world.novawf} hook run --home {world.home} -- true"
    world.write_hook(f"{inner}; echo inner $?")
    done = world.guarded(str(world.hook))
    assert (done.returncode, done.stdout) == (0, "inner 75\n")
    assert "runs inside another hook's tree" in done.stderr
    assert world.alerts() == []


def test_the_time_out_ends_the_whole_tree(world: HookWorld) -> None:
    """What detached itself too; it is no sign of running away, so nothing is shut off."""
    world.write_hook(f"setsid sh -c '{LINGERS}' & sleep 600")
    done = world.guarded(str(world.hook), flags=("--timeout", "1"))
    assert done.returncode == REFUSED
    assert "longer than 1 s" in done.stderr
    world.wait_until_quiet()
    assert world.status()[0]["state"] == "on"


def test_what_a_hook_leaves_behind_goes_on_and_is_still_guarded(world: HookWorld) -> None:
    """The agent gets its answer at once; the rest ends at the time-out at the latest."""
    world.write_hook(f"sh -c '{LINGERS}' > /dev/null 2>&1 < /dev/null & exit 5")
    process = started(
        world, [str(world.novawf), "hook", "run", "--timeout", "4", "--", str(world.hook)]
    )
    process.communicate(timeout=30)
    assert process.returncode == 5
    world.wait_until_quiet()


def warden_of(guard: int) -> int:
    """The warden of a guard: its only child."""
    return wait_until(lambda: children(guard), 10.0, "the warden")[0]


@pytest.mark.parametrize("victim", ["front", "warden", "hung_up"])
def test_whoever_is_killed_nothing_is_left(world: HookWorld, victim: str) -> None:
    """SIGKILL to either half, or the agent's SIGTERM: the tree ends, and the next run is well."""
    world.write_hook(f"( ( setsid sh -c '{LINGERS}' & ) & ); sleep 600")
    process = started(world, [str(world.novawf), "hook", "run", "--", str(world.hook)])
    if victim == "warden":
        os.kill(warden_of(process.pid), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGKILL if victim == "front" else signal.SIGTERM)
    process.communicate(timeout=30)
    if victim == "warden":
        assert process.returncode == REFUSED
    world.wait_until_quiet()
    world.write_hook("exit 0")
    assert world.guarded(str(world.hook)).returncode == 0


def test_a_guard_killed_while_it_holds_the_state_leaves_no_lock(world: HookWorld) -> None:
    """The kernel lets go of it; the state is the one before or the one after."""
    world.write_hook("exit 0")
    for delay_ms in range(0, 120, 12):
        process = subprocess.Popen(
            [str(world.novawf), "hook", "run", "--limit", "100", "--", str(world.hook)],
            env=world.env,
            stderr=subprocess.DEVNULL,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay_ms / 1000)
            raise subprocess.TimeoutExpired("", 0)
        process.kill()
        process.wait()
    world.wait_until_quiet()
    assert world.guarded(str(world.hook), flags=("--limit", "100")).returncode == 0


@pytest.mark.parametrize("garbage", ["", "{", '{"version": 99}', '{"version": 1, "name": 7}', "[]"])
def test_state_that_cannot_be_read_refuses_and_names_the_repair(
    world: HookWorld, garbage: str
) -> None:
    """Safety fails closed; `novawf hook reset` mends it."""
    world.write_hook("exit 0")
    files = HookFiles(str(world.home))
    files.prepare()
    Path(files.path(os.path.realpath(world.hook))).write_text(garbage)
    done = world.guarded(str(world.hook))
    assert done.returncode == REFUSED
    assert "novawf hook reset" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert world.lines("runs") == 0
    assert world.status()[0]["state"] == "unreadable"
    assert world.run([str(world.novawf), "hook", "reset"]).returncode == 0
    assert world.guarded(str(world.hook)).returncode == 0


def test_a_home_that_others_may_write_to_is_refused(world: HookWorld) -> None:
    (world.home / "hooks").mkdir(parents=True)
    (world.home / "hooks").chmod(0o777)
    world.write_hook("exit 0")
    done = world.guarded(str(world.hook))
    assert (done.returncode, world.lines("runs")) == (REFUSED, 0)


def test_the_check_is_done_again_when_a_script_changes(world: HookWorld) -> None:
    """A hook that was well and now loops is not run again."""
    world.write_hook("exit 0")
    assert world.guarded(str(world.hook)).returncode == 0
    world.write_hook("while true; do :; done")
    done = world.guarded(str(world.hook))
    assert done.returncode == REFUSED
    assert "has no end" in done.stderr
    assert world.lines("runs") == 1


@pytest.mark.parametrize("text", ["claude -p next", '"$(echo xlaudy | tr xy ce)" -p next'])
def test_a_shut_off_is_told_to_the_store_once(
    world: HookWorld, valkey_server: StoreAddress, text: str
) -> None:
    """One safety event, when a store is in reach; none is no hindrance."""
    with connect_sync(valkey_server) as store:
        store.flushall()
        world.env |= {"NOVAWF_STORE_URL": valkey_server.url(), "NOVAWF_NOVA": "torch"}
        world.write_hook(text)
        for _ in range(2):
            assert world.guarded(str(world.hook)).returncode == REFUSED
        entries = wait_until(lambda: store.xrange(keys.SAFETY_EVENTS), 30.0, "the event")
        world.wait_until_quiet()
        assert len(store.xrange(keys.SAFETY_EVENTS)) == 1
        fields = entries[0][1]
        assert fields["kind"] == "hook_failure"
        assert fields["source"] == os.path.realpath(world.hook)
        assert fields["nova"] == "torch"


def test_signals_to_strangers_are_never_sent(world: HookWorld) -> None:
    """The guard that ends a tree leaves its own parent and siblings alone."""
    with subprocess.Popen(["sleep", "600"]) as bystander:
        world.write_hook("sleep 600")
        world.guarded(str(world.hook), flags=("--timeout", "0.3"))
        stat = process_stat(bystander.pid)
        assert stat is not None and stat[0] not in "ZX"
        bystander.kill()
