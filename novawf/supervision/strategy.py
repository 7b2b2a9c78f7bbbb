"""Who is restarted together when one child fails: OTP's restart strategies."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from novawf.errors import Internal
from novawf.supervision.child_spec import ChildSpec, RestartKind


class Strategy(StrEnum):
    """Which children share the fate of a failed one."""

    ONE_FOR_ONE = "one_for_one"
    """The failed one alone."""
    ONE_FOR_ALL = "one_for_all"
    """All of them."""
    REST_FOR_ONE = "rest_for_one"
    """The failed one and those started after it."""


def children_to_stop(
    strategy: Strategy, children: Sequence[ChildSpec], failed: str
) -> tuple[str, ...]:
    """Ids of the running children to stop before the restart, in reverse start order.

    `children` is in start order. The failed one is dead already and not among them.
    """
    affected = _affected(strategy, children, failed)
    return tuple(spec.id for spec in reversed(affected) if spec.id != failed)


def children_to_restart(
    strategy: Strategy, children: Sequence[ChildSpec], failed: str
) -> tuple[str, ...]:
    """Ids of the children to start again, in start order.

    Temporary children are stopped with the others and, as in OTP, not started again.
    """
    return tuple(
        spec.id
        for spec in _affected(strategy, children, failed)
        if spec.restart is not RestartKind.TEMPORARY
    )


def _affected(
    strategy: Strategy, children: Sequence[ChildSpec], failed: str
) -> Sequence[ChildSpec]:
    positions = [position for position, spec in enumerate(children) if spec.id == failed]
    if not positions:
        raise Internal(f"child {failed!r} failed but is not among the supervised children")
    if strategy is Strategy.ONE_FOR_ALL:
        return children
    if strategy is Strategy.REST_FOR_ONE:
        return children[positions[0] :]
    return children[positions[0] : positions[0] + 1]
