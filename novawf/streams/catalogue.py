"""Which streams there are: those the fleet reads, and all that the protocol knows. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from novawf import ids
from novawf.store import keys

GROUP = "novawf"
"""The fleet's consumer group on every stream that it reads."""


def consumed(novas: Iterable[str]) -> tuple[str, ...]:
    """The streams that the fleet reads, the most urgent first."""
    return (
        keys.PRIORITY_ALERTS,
        *(keys.coordination(nova) for nova in novas),
        keys.COORDINATION_ALL,
        keys.TORCH_OPERATIONS,
        keys.WORK_QUEUE,
    )


def protocol(novas: Iterable[str]) -> tuple[str, ...]:
    """Every stream of the protocol, from the schema: fixed ones, and each Nova's and `fleet`'s.

    Streams under `novawf:` are not among them: they belong to the module that writes them, which
    bounds them by itself.
    """
    names = (ids.FLEET, *novas)
    found: list[str] = []
    for row in keys.SCHEMA:
        if row.type == "stream" and not row.name.startswith("novawf:"):
            if "{nova}" in row.name:
                found += (row.name.replace("{nova}", name) for name in names)
            else:
                found.append(row.name)
    return tuple(found)
