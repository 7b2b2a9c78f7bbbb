"""Who belongs to a fleet: the children of the supervisor, in the order in which they start.

Shared actors first, then the Novas, then the reader of the streams. It starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

FIRST = ("safety", "limiter", "metrics")
LAST = ("streams",)
"""Work from outside can wait in its stream, the Novas shall not wait for its reader."""
SHARED = (*FIRST, *LAST)
"""Names of the children that are no Novas."""


class Roster:
    """Makes the children of one run of the fleet; starts none of them."""

    def __init__(
        self,
        settings: Settings,
        ground: Ground,
        report: StoreReport,
        environment: Mapping[str, str],
        *,
        until_idle: bool,
    ) -> None:
        self.settings = settings
        self.ground = ground
        self.report = report
        self.environment = environment
        self.archive_dir = settings.tasks.archive_dir or settings.fleet.home / "archive"
        self.work = _work_settings(settings.work, until_idle)
        # A cluster's actors live on other machines than our files.
        self._audited_home = None if ground.outlived else settings.fleet.home

    def children(self, novas: Sequence[str]) -> list[Child]:
        """All that a fleet begins with, in the order of their start. Raises InvalidConfig."""
        settings, store = self.settings, self.report.address
        offset_ms = self.report.clock_offset_ms
        children = [
            self._shared(
                "safety",
                SafetyActor,
                store,
                offset_ms,
                settings.safety,
                settings.budget,
                self._audited_home,
            ),
            self._shared("limiter", LimiterActor, store, offset_ms, settings.limits),
            self._shared("metrics", MetricsActor, store, offset_ms, settings.metrics),
            *(self.nova(name) for name in novas),
            self.streams(novas),
        ]
        check_child_specs(child.spec for child in children)
        return children

    def nova(self, name: str) -> Child:
        """A Nova; Ray's name for it is the slot that it gets (decision 005)."""
        settings, report = self.settings, self.report
        config = NovaConfig(
            name=name,
            store=report.address,
            clock_offset_ms=report.clock_offset_ms,
            log_dir=self.ground.log_dir,
            keeper_socket=self.ground.run_dir / "keeper.sock",
            profile=profile_for(name, settings.personality),
            pace=settings.fleet.pace,
            tasks=settings.tasks,
            phases=settings.phases,
            completion=settings.completion,
            executors=settings.executors,
            env=self.environment,
            state_ttl_s=settings.fleet.state_ttl_s,
            claims_wait=report.probe.backend != "dragonfly",
            work=self.work,
            wake=settings.wake,
            budget=settings.budget,
            archive_dir=self.archive_dir,
        )
        return Child(_nova_spec(settings, name), "nova", "", NovaActor, (config,))

    def streams(self, novas: Sequence[str]) -> Child:
        """The reader of the streams, of these Novas and the fleet."""
        settings = self.settings
        config = StreamConfig(
            self.report.address, tuple(novas), settings.streams, settings.tasks, settings.wake,
            self.archive_dir, self.ground.log_dir,
        )  # fmt: skip
        return self._shared("streams", StreamsActor, config, self.report.clock_offset_ms)

    def _shared(self, name: str, actor_class: type, *args: Any) -> Child:
        return Child(_shared_spec(name), "actor", name, actor_class, args)


def child_specs(settings: Settings) -> list[ChildSpec]:
    """What a fleet with these settings would begin with, in the order of its start: to be checked
    before anything is started for it."""
    novas = [_nova_spec(settings, name) for name in settings.fleet.novas]
    return [*map(_shared_spec, FIRST), *novas, *map(_shared_spec, LAST)]


def _nova_spec(settings: Settings, name: str) -> ChildSpec:
    return ChildSpec(name, shutdown_s=settings.supervision.shutdown_s)


def _shared_spec(name: str) -> ChildSpec:
    # All that it knows is in the store: there is nothing for it to end.
    return ChildSpec(name, shutdown_s=0)


def _work_settings(work: WorkSettings, until_idle: bool) -> WorkSettings:
    """`--until-idle` drains what is queued: Novas that made work of their own accord would keep
    the fleet from ever being idle."""
    return work.model_copy(update={"discovery": False}) if until_idle else work
