"""Puts what the supervisor announces into the audit trail, before anybody reads it.

The one place where events are made known is the one place where they are recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from novawf.audit.log import AuditLog, BackgroundAudit, Bounds, share_settings, user_name
from novawf.audit.supervision import LAST_WORDS, WHO, Happenings
from novawf.cli.live import Announcer
from novawf.settings import Settings, hide_secrets

log = logging.getLogger("novawf.actors")


class Audited:
    """An announcer that records first. Telemetry: it never raises and does not wait, but for its
    last words."""

    def __init__(self, announcer: Announcer, settings: Settings) -> None:
        self.show_s = announcer.show_s
        self._announcer = announcer
        self._settings = settings
        bounds = Bounds.of(settings.audit.model_dump())
        self._audit = BackgroundAudit(AuditLog(settings.fleet.home, bounds))
        self._happenings = Happenings()

    def announce(self, event: str, **fields: Any) -> None:
        """Record an event, and announce it."""
        if event == "starting":  # by now the home is ours
            self._begin()
            fields["by"] = user_name()
        happening = self._happenings.of(event, fields)
        if happening is not None:
            self._audit.record(who=WHO, **happening._asdict())
        if event in LAST_WORDS:
            self._audit.flush()
        self._announcer.announce(event, **fields)

    def show(self, status: Mapping[str, Any]) -> None:
        """The fleet as it is now: nothing that happened."""
        self._announcer.show(status)

    def _begin(self) -> None:
        hide_secrets(self._settings)
        try:
            share_settings(self._settings.fleet.home, self._settings.audit.model_dump(mode="json"))
        except OSError as error:
            log.warning("audit: commands will not know its settings: %s", error.strerror)
