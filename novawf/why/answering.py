"""Answers `why` about a task, a Nova or the fleet: finds what is meant, reads it, explains it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from novawf.errors import NotFound
from novawf.ids import FLEET, valid_nova_name
from novawf.store import keys
from novawf.why.explanation import Explanation
from novawf.why.fleet import explain_fleet
from novawf.why.holds import no_fleet, starting
from novawf.why.novas import explain_nova
from novawf.why.reading import Reader
from novawf.why.tasks import explain_task

_REMEMBERED: Final = 1000
"""So many of the latest task ids are compared with one that does not exist."""


async def answer(reader: Reader, subject: str | None) -> dict[str, Any]:
    """The document of `novawf why --json`. Raises NotFound, naming the nearest known."""
    fleet = await reader.fleet()
    if subject is None or subject == FLEET:
        why = explain_fleet(fleet, reader.moment(), await reader.scan(fleet))
        return why.document(FLEET, "fleet")
    nova = fleet.novas.get(subject)
    if nova is not None:
        return explain_nova(nova, fleet, reader.moment()).document(subject, "nova")
    task = await reader.task(subject, fleet)
    if task is None:
        nobody = no_fleet(fleet, reader.moment()) or starting(fleet)
        if nobody is not None and not fleet.novas and valid_nova_name(subject):
            return nobody.document(subject, "nova")  # which Novas there will be is not known
        raise NotFound(await _unknown(reader, subject, fleet.novas))
    return explain_task(task, fleet, reader.moment()).document(subject, "task")


def out_of_reach(subject: str | None, why: Explanation) -> dict[str, Any]:
    """The document when nothing could be read: `why` says as much."""
    if subject is None or subject == FLEET:
        return why.document(FLEET, "fleet")
    return why.document(subject, "nova" if valid_nova_name(subject) else "task")


async def _unknown(reader: Reader, subject: str, novas: Iterable[str]) -> str:
    """One line for a name that is neither a task nor a Nova."""
    latest = await reader.redis.zrevrange(keys.TASK_ORDER, 0, _REMEMBERED - 1)
    known = {name.casefold(): name for name in [*latest, *novas]}
    near = get_close_matches(subject.casefold(), known, n=1, cutoff=0.6)
    if near:
        return f"there is no task or Nova {subject}: did you mean {known[near[0]]}?"
    names = ", ".join(sorted(novas)) or "none"
    return f"there is no task or Nova {subject}; Novas: {names}; `novawf tasks` lists the tasks"
