"""The incident, replayed with real processes: a stop hook that calls the agent and begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from hook_world import HookWorld
from waiting import wait_until

REFUSED = 75


@pytest.fixture
def world(tmp_path: Path) -> HookWorld:
    """A home, a `novawf` and a fake agent."""
    return HookWorld(tmp_path)


def test_the_incident_is_shut_off_once_and_recovers_by_itself(world: HookWorld) -> None:
    """No second session is opened, one alert is written, and after the cooldown it runs again."""
    incident = 'claude -p "continue" >> "$LOG/out" 2>&1\nsleep 0.1\nexec "$0" "$@"'
    world.write_hook(incident)
    world.session()
    world.wait_until_quiet()
    assert world.lines("sessions") == 1
    assert world.lines("runs") <= 3
    assert [alert["kind"] for alert in world.alerts()] == ["check"]
    assert "agent" in world.alerts()[0]["reason"] or "claude" in world.alerts()[0]["reason"]

    world.session()  # still shut off: refused, and no second alert
    assert (world.log / "ends").read_text().splitlines() == [f"stop hook: {REFUSED}"] * 2
    assert len(world.alerts()) == 1

    world.shorten_cooldown(500)
    wait_until(lambda: world.status()[0]["state"] == "on", 30.0, "the recovery")
    world.write_hook("echo mended")
    world.session()
    assert (world.log / "ends").read_text().splitlines()[-1] == "stop hook: 0"
    assert len(world.alerts()) == 1
    assert world.status()[0]["shut_offs"] == 1


def test_one_that_was_not_mended_is_shut_off_again(world: HookWorld) -> None:
    """Each shut-off has its alert."""
    world.write_hook("claude -p continue")
    world.session()
    world.shorten_cooldown(0)
    world.session()
    assert [alert["id"] for alert in world.alerts()] == [1, 2]
    assert world.lines("runs") == 0


ME = "me=$(tr '\\0' '\\n' < /proc/$$/cmdline | sed -n 2p)\n"
"""The script's own path, in words that no check can read."""
AGENT = "agent=$(echo xlaudy | tr xy ce)\n"

EVASIONS = {
    "name_from_variables": ME + AGENT + '"$agent" -p next\nexec "$me"',
    "script_made_at_run_time": (
        'printf \'#!/bin/sh\\n%s%s -p next\\nexec "$0"\\n\' cla ude > "$LOG/made.sh"\n'
        'chmod +x "$LOG/made.sh"; exec "$LOG/made.sh"'
    ),
    "self_through_a_link": (
        ME + AGENT + 'ln -sf "$(readlink -f "$me")" "$LOG/link.sh"\n'
        '"$agent" -p next\nexec "$LOG/link.sh"'
    ),
    "own_path_of_the_agent": ME + AGENT + '"${LOG%/log}/bin/$agent" -p next\nexec "$me"',
    "no_environment": (
        AGENT + "env -i PATH=/usr/bin:/bin /bin/sh -c 'exec \"$1\" -p next' _ "
        '"${LOG%/log}/bin/$agent"\n'
    ),
    "detached": (AGENT + '( setsid "$agent" -p next < /dev/null > /dev/null 2>&1 & )\nsleep 5'),
}


@pytest.mark.parametrize("name", sorted(EVASIONS))
def test_what_the_check_cannot_read_is_stopped_as_it_happens(world: HookWorld, name: str) -> None:
    """Within three executions and three sessions, with one alert and nothing left behind."""
    world.write_hook(EVASIONS[name])
    world.session()
    world.wait_until_quiet()
    assert world.lines("sessions") <= 3
    assert world.lines("runs") <= 3
    assert len(world.alerts()) == 1
    assert world.alerts()[0]["kind"] in ("agent", "loop", "recursion")
    world.session()  # it stays shut off
    assert world.lines("runs") <= 3
    assert len(world.alerts()) == 1


def test_a_hook_that_replaces_itself_for_ever_is_ended(world: HookWorld) -> None:
    """At a pace at which it does anything at all: within three executions."""
    world.write_hook(ME + 'ln -sf "$(readlink -f "$me")" "$LOG/l"; sleep 0.3; exec "$LOG/l"')
    done = world.guarded(str(world.hook))
    assert done.returncode == REFUSED
    assert "shut off" in done.stderr
    assert world.lines("runs") <= 3
    assert [alert["kind"] for alert in world.alerts()] == ["loop"]


def test_a_hook_that_starts_itself_in_the_background_is_ended(world: HookWorld) -> None:
    """Each copy outlives its parent: the chain of orphans is one chain."""
    world.write_hook(ME + 'sleep 0.3; "$me" > /dev/null 2>&1 &')
    world.guarded(str(world.hook))
    wait_until(world.alerts, 20.0, "the alert")
    world.wait_until_quiet()
    assert world.lines("runs") <= 3
    assert [alert["kind"] for alert in world.alerts()] == ["loop"]
