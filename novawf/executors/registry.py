"""Builds the executors by name. Which names a task may give is `novawf.tasks.model.EXECUTORS`."""

from __future__ import annotations

from collections.abc import Mapping

from novawf.executors.base import Executor
from novawf.executors.command import CommandExecutor
from novawf.executors.config import ExecutorSettings
from novawf.executors.maintenance import Job, MaintenanceExecutor
from novawf.executors.python import PythonExecutor
from novawf.processes.keeper import KeeperClient


def build_executors(
    keeper: KeeperClient,
    settings: ExecutorSettings,
    base_env: Mapping[str, str],
    jobs: Mapping[str, Job],
    job_limit_s: float,
) -> dict[str, Executor]:
    """Name → executor, for one Nova. Nothing starts before the first piece of work.

    `jobs` are the built-in ones, by name; each has `job_limit_s` to end.
    """
    executors: tuple[Executor, ...] = (
        CommandExecutor(keeper, settings, base_env),
        PythonExecutor(keeper, settings, base_env),
        MaintenanceExecutor(jobs, job_limit_s),
    )
    return {executor.name: executor for executor in executors}
