"""The environment that work runs in: a clean copy, never what our own process happens to hold."""

from __future__ import annotations

from collections.abc import Mapping

OURS = "NOVAWF_"
PASSED_ON = frozenset({"NOVAWF_RUN_ID", "NOVAWF_HOME"})
"""The sentinel's stamp, and where the fleet is, for work that calls `novawf` itself.

Everything else under our prefix is settings and secrets of the fleet (the store's URL and
password): not the work's business.
"""


def base_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What all work inherits."""
    return {
        name: value
        for name, value in inherited.items()
        if not name.startswith(OURS) or name in PASSED_ON
    }
