"""Who belongs to a fleet: the children of the supervisor, in the order in which they start.

Shared actors first, then the Novas, then the reader of the streams. It starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actors.child import Child
from actors.ground import Ground, StoreReport
from actors.limiter import LimiterActor
from actors.metrics import MetricsActor
from actors.nova import NovaActor
from actors.safety import SafetyActor
from actors.streams import StreamsActor
from novawf.personality.profiles import profile_for
from novawf.settings import Settings
from novawf.streams.assembly import StreamConfig
from novawf.supervision.child_spec import ChildSpec, check_child_specs
from novawf.work.config import WorkSettings
from novawf.workflow.nova import NovaConfig


def children_of(
    settings: Settings,
    ground: Ground,
    report: StoreReport,
    environment: Mapping[str, str],
    *,
    until_idle: bool,
) -> list[Child]:
    """The children, none of them started. Raises InvalidConfig where their specs contradict."""
    store, offset_ms = report.address, report.clock_offset_ms
    archive_dir = settings.tasks.archive_dir or settings.fleet.home / "archive"
    work = _work_settings(settings.work, until_idle)
    novas = [
        _nova(
            slot,
            NovaConfig(
                name=name,
                store=store,
                clock_offset_ms=offset_ms,
                log_dir=ground.log_dir,
                keeper_socket=ground.run_dir / "keeper.sock",
                profile=profile_for(name, settings.personality),
                pace=settings.fleet.pace,
                tasks=settings.tasks,
                phases=settings.phases,
                completion=settings.completion,
                executors=settings.executors,
                env=environment,
                state_ttl_s=settings.fleet.state_ttl_s,
                claims_wait=report.probe.backend != "dragonfly",
                work=work,
                wake=settings.wake,
                archive_dir=archive_dir,
            ),
            settings.supervision.shutdown_s,
        )
        for slot, name in enumerate(settings.fleet.novas)
    ]

    def shared(name: str, actor_class: type, *args: Any) -> Child:
        spec = ChildSpec(name, shutdown_s=settings.supervision.shutdown_s)
        return Child(spec, "actor", name, actor_class, args)

    children = [
        shared("safety", SafetyActor, store, offset_ms, settings.safety),
        shared("limiter", LimiterActor, store, offset_ms, settings.limits),
        shared("metrics", MetricsActor, store, offset_ms, settings.metrics),
        *novas,
        # Last: work from outside can wait in its stream, the Novas shall not wait for its reader.
        shared("streams", StreamsActor, _streams(settings, report, archive_dir, ground), offset_ms),
    ]
    check_child_specs(child.spec for child in children)
    return children


def _nova(slot: int, config: NovaConfig, shutdown_s: float) -> Child:
    """A Nova's Ray name is its slot: Ray cannot rename an actor (decision 005)."""
    spec = ChildSpec(config.name, shutdown_s=shutdown_s)
    return Child(spec, "nova", f"nova-{slot:02d}", NovaActor, (config,))


def _streams(
    settings: Settings, report: StoreReport, archive_dir: Path, ground: Ground
) -> StreamConfig:
    return StreamConfig(
        report.address, settings.fleet.novas, settings.streams, settings.tasks, settings.wake,
        archive_dir, ground.log_dir,
    )  # fmt: skip


def _work_settings(work: WorkSettings, until_idle: bool) -> WorkSettings:
    """`--until-idle` drains what is queued: Novas that made work of their own accord would keep
    the fleet from ever being idle."""
    return work.model_copy(update={"discovery": False}) if until_idle else work
