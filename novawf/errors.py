"""The one error tree. Messages say what happened, to what, and what to do.

::

    NovawfError
    ├── UserError                 the caller's input is at fault; trying again does not help
    │   ├── InvalidTask           a task breaks a rule; names the field
    │   ├── ProtocolViolation     a protocol record breaks a rule; names the field
    │   ├── InvalidConfig         a setting breaks a rule; names the key
    │   ├── InvalidImport         a file to import breaks a rule; names file and line
    │   ├── InvalidSignal         a wake signal breaks a rule; names the field
    │   ├── InvalidSchedule       a schedule breaks a rule; names the field
    │   ├── NotFound              no such task or Nova
    │   ├── StoreAuthFailed       the store refused the password
    │   ├── PortInUse             somebody else listens there
    │   ├── HomeInUse             another supervisor owns this home; names its pid
    │   └── StoreInUse            another supervisor runs on this store; names it
    ├── OutOfReach                nothing to talk to; trying again later may help
    │   ├── StoreUnreachable      the store does not answer
    │   ├── RayUnreachable        no Ray cluster answers, or it does not take us in
    │   ├── FleetNotRunning       no fleet at this home
    │   └── NoAnswer              no supervisor took an order, or it fell silent
    ├── Refused                   the state of the thing forbids it now; names that state
    │   └── BudgetSpent           a paid call does not fit into a budget; names it, and its end
    ├── Fenced                    a stale owner's write was refused; its name belongs to another
    │   └── LeaseLost             only the task was lost; the Nova goes on without it
    └── Internal                  our own fault
        ├── IllegalTransition     an event that the state's table does not know
        ├── CorruptState          what the store holds is not what we wrote
        └── ExecutorLost          the keeper or worker that ran the work went away

Exit codes of the command line (architecture §6): `UserError` 2, `OutOfReach` 3, the rest 1.
Foreign exceptions (redis, Ray, OSError) do not leave the adapter that met them.
"""

from __future__ import annotations


class NovawfError(Exception):
    """Root of all errors this project raises on purpose."""

    exit_code = 1


class UserError(NovawfError):
    """The caller's input is at fault."""

    exit_code = 2


class InvalidTask(UserError):
    """A task breaks a rule of the model or of the protocol."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[type[InvalidTask], tuple[str, str]]:
        return (InvalidTask, (self.field, self.rule))


class ProtocolViolation(UserError):
    """A record on a protocol stream breaks a rule of the protocol (spec §4)."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[type[ProtocolViolation], tuple[str, str]]:
        return (ProtocolViolation, (self.field, self.rule))


class InvalidConfig(UserError):
    """A setting is unknown or breaks a rule."""


class InvalidImport(UserError):
    """A file to import is broken; nothing of it was submitted."""


class InvalidSignal(UserError):
    """A wake signal breaks a rule; nothing came of it."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[type[InvalidSignal], tuple[str, str]]:
        return (InvalidSignal, (self.field, self.rule))


class InvalidSchedule(UserError):
    """A schedule breaks a rule; it was not kept."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[type[InvalidSchedule], tuple[str, str]]:
        return (InvalidSchedule, (self.field, self.rule))


class NotFound(UserError):
    """No such task or Nova."""


class StoreAuthFailed(UserError):
    """The store refused the password."""


class PortInUse(UserError):
    """The port that was asked for is taken."""


class HomeInUse(UserError):
    """Another supervisor owns this home or this store."""


class StoreInUse(UserError):
    """Another supervisor runs its fleet on this store."""


class OutOfReach(NovawfError):
    """There is nothing to talk to."""

    exit_code = 3


class StoreUnreachable(OutOfReach):
    """The store does not answer."""


class RayUnreachable(OutOfReach):
    """No Ray cluster answers, or it does not take us in."""


class FleetNotRunning(OutOfReach):
    """No fleet runs at this home."""


class NoAnswer(OutOfReach):
    """No supervisor took an order, or it did not finish answering."""


class Refused(NovawfError):
    """The state of the thing forbids what was asked."""


class BudgetSpent(Refused):
    """A paid call does not fit into what a budget leaves; it must not be made."""

    def __init__(
        self,
        message: str,
        scope: str,
        name: str,
        window: str,
        until_ms: int | None,
        frees_in_s: float | None = None,
    ) -> None:
        """`until_ms`: fleet time at which the window ends, `frees_in_s` the same from when it was
        raised; None: only a higher cap frees it."""
        super().__init__(message)
        self.scope = scope
        self.name = name
        self.window = window
        self.until_ms = until_ms
        self.frees_in_s = frees_in_s

    def __reduce__(self) -> tuple[type[BudgetSpent], tuple[str | float | None, ...]]:
        fields = (str(self), self.scope, self.name, self.window, self.until_ms, self.frees_in_s)
        return (BudgetSpent, fields)


class Fenced(NovawfError):
    """A write under a stale epoch was refused."""


class LeaseLost(Fenced):
    """The task in hand belongs to another by now, or to nobody."""


class Internal(NovawfError):
    """Our own fault."""


class IllegalTransition(Internal):
    """A state machine met an event its table does not know."""


class CorruptState(Internal):
    """The store holds something that we did not write."""


class ExecutorLost(Internal):
    """The keeper or the worker that ran the work went away."""


class ExecutorAway(ExecutorLost):
    """There is no keeper server that could start the work: it was not begun."""
