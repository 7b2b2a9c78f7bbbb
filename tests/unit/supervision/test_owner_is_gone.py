"""When a supervisor that holds the store is known to be gone."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from actors.ground import _is_gone
from novawf.clock import boot_id
from novawf.processes.identity import process_start_time
from novawf.store.ownership import Owner


@pytest.fixture
def dead(tmp_path: Path) -> Owner:
    """A supervisor of this machine with our pid, before us."""
    return Owner("run", os.getpid(), 1, boot_id(), socket.gethostname(), str(tmp_path))


def test_one_whose_process_has_ended_is_gone(dead: Owner) -> None:
    """Its lease need not be waited for."""
    assert _is_gone(dead)


def test_one_that_lives_is_not(dead: Owner) -> None:
    """Pid and start time are those of a living process."""
    parent = os.getppid()
    assert not _is_gone(replace(dead, pid=parent, start_time=process_start_time(parent) or 0))


def test_the_image_of_this_process_before_it_was_begun_anew_is_gone(dead: Owner) -> None:
    """Same pid, same start time: `exec` changes neither."""
    assert _is_gone(replace(dead, start_time=process_start_time(os.getpid()) or 0))


def test_one_of_another_boot_may_live_elsewhere(dead: Owner) -> None:
    """Then its lease tells."""
    assert not _is_gone(replace(dead, boot_id="another"))


def test_one_in_another_container_of_this_machine_may_live(dead: Owner) -> None:
    """Its pid means nothing here, though the boot id is the same."""
    assert not _is_gone(replace(dead, host="another-container"))


def test_one_that_left_its_fleet_to_a_cluster_is_gone_for_those_alone_who_adopt_that(
    dead: Owner,
) -> None:
    """A fleet on one machine sees nothing of it: it fences it off, and waits for its leases."""
    left = replace(dead, on_cluster=True)
    assert _is_gone(left, adopts=True)
    assert not _is_gone(left)
    assert _is_gone(dead, adopts=True)
