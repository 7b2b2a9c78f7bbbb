"""Which Novas a fleet is to have: by their names, or by how many. Pure decisions."""

from __future__ import annotations

from collections.abc import Sequence

from novawf.errors import UserError
from novawf.ids import valid_nova_name

MOST = 500
"""More Novas than one machine or small cluster can hold: a slip of the finger."""


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for what cannot be a Nova's name."""
    for name in names:
        if not isinstance(name, str) or not valid_nova_name(name):
            raise UserError(
                f"{name!r} cannot name a Nova: a-z, 0-9, _ and -, up to 32, first a letter, "
                "not `fleet`"
            )


def members(to: int | Sequence[str], present: Sequence[str], profiles: Sequence[str]) -> list[str]:
    """The names that a fleet of `present` is to have. Raises UserError.

    A number keeps those that came first, and adds `profiles` not there yet, then `nova-N`.
    """
    if isinstance(to, int):
        if not 1 <= to <= MOST:
            raise UserError(f"scale: {to} Novas; give 1 to {MOST}")
        wanted = list(present[:to])
        spare = [name for name in profiles if name not in present]
        number = 1
        while len(wanted) < to:
            if spare:
                wanted.append(spare.pop(0))
                continue
            if (name := f"nova-{number}") not in wanted and name not in present:
                wanted.append(name)
            number += 1
        return wanted
    check_names(to)
    if not to:
        raise UserError("scale: give the names of the Novas, or how many")
    return list(dict.fromkeys(to))


def changes_to(wanted: Sequence[str], present: Sequence[str]) -> tuple[list[str], list[str]]:
    """Who joins, in the wanted order, and who leaves, last come first."""
    joining = [name for name in wanted if name not in present]
    leaving = [name for name in reversed(present) if name not in wanted]
    return joining, leaving
