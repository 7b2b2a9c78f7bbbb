"""All settings, composed once from defaults, file, environment and flags; the later wins.

The models live beside the code that uses them. This module joins them, says where a wrong value
came from, and is the only one that reads the environment. It opens no store and starts nothing;
`ensure_home` alone writes to the disk.

pydantic-settings would do the composing too, but importing it takes another 100 ms of every
command, and its errors name neither file nor variable.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from novawf import ids
from novawf.audit.config import AuditSettings
from novawf.completion.config import CompletionSettings
from novawf.errors import InvalidConfig
from novawf.executors.config import ExecutorSettings
from novawf.limits.budget_config import BudgetSettings
from novawf.limits.config import NAME_RULE as LIMIT_NAME_RULE
from novawf.limits.config import LimitSettings, valid_limit_name
from novawf.personality.config import ProfileSettings
from novawf.processes import notify
from novawf.safety.config import SafetySettings
from novawf.store.config import StoreSettings
from novawf.store.connect import parse_url
from novawf.streams.config import StreamSettings
from novawf.streams.wake_config import WakeSettings
from novawf.supervision.config import SupervisionSettings
from novawf.tasks.config import TaskSettings
from novawf.telemetry.config import MetricsSettings
from novawf.telemetry.masking import hide
from novawf.work.config import WorkSettings
from novawf.workflow.config import PhaseSettings

FILE_NAME = "novawf.toml"

PREFIX = "NOVAWF_"

SHORTCUTS: Mapping[str, tuple[str, ...]] = {
    "NOVAWF_HOME": ("fleet", "home"),
    "NOVAWF_STORE_URL": ("store", "url"),
    "NOVAWF_STORE_PASSWORD": ("store", "password"),
}
"""Variables with a name of their own, beside `NOVAWF_SECTION__KEY`."""

SET_FOR_CHILDREN = frozenset(
    {"NOVAWF_TASK_ID", "NOVAWF_ATTEMPT", "NOVAWF_NOVA", "NOVAWF_RUN_ID", "NOVAWF_KEEPER"}
    | {"NOVAWF_HOOK_DEPTH"}
)
"""What the fleet itself puts into the environment of what it starts: no settings."""

_SECRET = frozenset({"NOVAWF_STORE_URL", "NOVAWF_STORE_PASSWORD"}) | {
    "NOVAWF_STORE__URL",
    "NOVAWF_STORE__PASSWORD",
}
"""Variables that hold, or may hold, the store's password: no child needs them."""

_STORE_URL = ("store", "url")

COMMAND_LINE = "command line"
ENVIRONMENT = "environment"

_NAME_RULE = "a-z, 0-9, _ and -, up to 32, first a letter, and not 'fleet'"

_Path: TypeAlias = tuple[str, ...]
"""A key's place: ("limits", "concurrent") or ("personality", "torch", "cycle_s")."""


class _Names(NamedTuple):
    """Tables that users name themselves, such as `[personality.NAME]`."""

    what: str
    is_valid: Callable[[str], bool]
    rule: str
    declares: bool = False
    """Whether a table that sets nothing says something: that there is such a thing."""


_NAMED: Mapping[_Path, _Names] = {
    ("personality",): _Names("Nova name", ids.valid_nova_name, _NAME_RULE),
    ("limits", "named"): _Names("name of a limit", valid_limit_name, LIMIT_NAME_RULE, True),
    ("budget", "novas"): _Names("Nova name", ids.valid_nova_name, _NAME_RULE),
    ("budget", "providers"): _Names("provider name", ids.valid_nova_name, _NAME_RULE),
}
"""Where they are, and what they may be called; in `_known` their name is `*`."""


class FleetSettings(BaseModel):
    """`[fleet]`: who works, how fast, and where the fleet keeps its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    novas: tuple[str, ...] = Field(("torch", "echo", "helix"), min_length=1)
    pace: float = Field(1.0, ge=0, le=1000, description="Scales every pause; 0 removes them.")
    home: Path
    state_ttl_s: int = Field(
        3600, ge=60, description="How long a Nova's workflow state outlives its last write."
    )

    @field_validator("novas")
    @classmethod
    def _novas_have_valid_names_of_their_own(cls, novas: tuple[str, ...]) -> tuple[str, ...]:
        for name in novas:
            if not ids.valid_nova_name(name):
                raise ValueError(f"{name!r} is no Nova name: {_NAME_RULE}")
            if novas.count(name) > 1:
                raise ValueError(f"{name} is named twice")
        return novas


class RaySettings(BaseModel):
    """`[ray]`: which cluster to join, and whether a local one shows its dashboard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None, description="HOST:PORT of a running cluster's GCS, or auto; None: a Ray of its own."
    )
    dashboard: bool = True
    dashboard_port: int | None = Field(
        None, ge=1, le=65535, description="None: 8265, or the next one that is free."
    )
    prefork: bool = Field(
        True, description="Whether a local Ray's workers are forked, not started (decision 021)."
    )


class Settings(BaseModel):
    """Everything that can be set; one field a section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fleet: FleetSettings
    store: StoreSettings = StoreSettings()
    limits: LimitSettings = LimitSettings()
    budget: BudgetSettings = BudgetSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    safety: SafetySettings = SafetySettings()
    tasks: TaskSettings = TaskSettings()
    streams: StreamSettings = StreamSettings()
    executors: ExecutorSettings = ExecutorSettings()
    phases: PhaseSettings = PhaseSettings()
    completion: CompletionSettings = CompletionSettings()
    wake: WakeSettings = WakeSettings()
    work: WorkSettings = WorkSettings()
    metrics: MetricsSettings = MetricsSettings()
    audit: AuditSettings = AuditSettings()
    ray: RaySettings = RaySettings()
    personality: dict[str, ProfileSettings] = Field(default_factory=dict)


def load_settings(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Compose the settings of this process. Raises InvalidConfig, in one line.

    `config` is the file to read; without it ./novawf.toml is read, or else the one in the home
    directory, when there is one. `overrides` come from flags: dotted key → value, where None
    stands for a flag that was not given. `environ` is the environment of the process by default.
    """
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    above = _Layers()
    _add_environment(above, variables)
    in_environment = above.values.get(_STORE_URL)
    _add_overrides(above, overrides or {})
    _with_its_password(above, in_environment)
    home = above.values.get(("fleet", "home"), default_home({}))
    layers = _Layers()
    layers.put(("fleet", "home"), home, "defaults")
    file = _file(config, Path(str(home)))
    if file is not None:
        _add_file(layers, file)
    layers.put_over(above)
    return _build(layers)


def default_home(environ: Mapping[str, str]) -> Path:
    """The home directory: NOVAWF_HOME, or else ~/.novawf."""
    return _absolute(environ.get("NOVAWF_HOME") or "~/.novawf")


def environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of the environment for what the fleet starts, without what is secret in it, or meant
    for the supervisor alone."""
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    return {
        name: value
        for name, value in variables.items()
        if name not in _SECRET and name not in notify.VARIABLES
    }


def hide_secrets(settings: Settings, environ: Mapping[str, str] | None = None) -> None:
    """Mask, wherever this process would show them, the store's password and the values of the
    variables that `[audit] secret_env` names."""
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    password = settings.store.password
    hide(None if password is None else password.get_secret_value())
    hide(*(variables.get(name) for name in settings.audit.secret_env))


def service_manager(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a service manager said to this very process, for `notify.Notifier`."""
    variables = os.environ if environ is None else environ  # noqa: TID251 - the one place
    return {name: variables[name] for name in notify.VARIABLES if name in variables}


def ensure_home(path: Path) -> None:
    """Make sure that `path` is a directory of ours that nobody else can change.

    It is created with mode 0700. Raises InvalidConfig when it cannot be, when it belongs to
    somebody else, or when others may write to it: the fleet's sockets and passwords are in it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise InvalidConfig(
            f"home {path}: cannot be created: {error.strerror or error}; choose another by --home"
        ) from None
    if status.st_uid != os.geteuid():
        raise InvalidConfig(
            f"home {path}: belongs to user {status.st_uid}, not to you; choose another by --home"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidConfig(
            f"home {path}: others may write to it (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"run: chmod go-w {path}"
        )


# -- sources ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Layers:
    """Values by key, and where each came from; what is put later wins."""

    values: dict[_Path, Any] = field(default_factory=dict)
    origins: dict[_Path, str] = field(default_factory=dict)

    def put(self, path: _Path, value: Any, origin: str) -> None:
        self.values[path] = value
        self.origins[path] = origin

    def put_over(self, other: _Layers) -> None:
        self.values.update(other.values)
        self.origins.update(other.origins)


def _file(config: Path | None, home: Path) -> Path | None:
    if config is not None:
        return config.expanduser()
    return next((p for p in (Path(FILE_NAME), home / FILE_NAME) if p.is_file()), None)


def _add_file(layers: _Layers, file: Path) -> None:
    """Values have TOML's types; relative paths are relative to the file."""
    try:
        text = file.read_bytes().decode()
        document = tomllib.loads(text)
    except OSError as error:
        raise InvalidConfig(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidConfig(f"{file}:{line}: is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        fault = str(error)[:1].lower() + str(error)[1:]
        raise InvalidConfig(f"{file}:{line}: is not TOML: {fault}") from None
    for path, value in _leaves(document):
        if _declares(path) and value == {}:  # it exists, and sets nothing
            layers.put(path, {}, str(file))
            continue
        atoms = _atoms_of(path, f"{file}: unknown key {_dotted(path)}")
        if isinstance(value, str):
            if atoms <= {int, float, bool}:
                raise _wrong(str(file), path, value, "must be written without quotes")
            if Path in atoms:
                value = _absolute(value, file.parent)  # noqa: PLW2901 - the leaf is ours
        elif isinstance(value, bool) and bool not in atoms:
            raise _wrong(str(file), path, value, "must not be true or false")
        elif isinstance(value, list) and Path in atoms:
            value = [_absolute(str(item), file.parent) for item in value]  # noqa: PLW2901
        layers.put(path, value, str(file))


def _add_environment(layers: _Layers, environ: Mapping[str, str]) -> None:
    """Values are texts; a variable set to nothing counts as not set."""
    names: dict[_Path, str] = {}
    for name in sorted(environ):
        text = environ[name]
        if not name.startswith(PREFIX) or name in SET_FOR_CHILDREN or not text:
            continue
        path = SHORTCUTS.get(name) or tuple(name.removeprefix(PREFIX).lower().split("__"))
        atoms = _atoms_of(
            path, f"{ENVIRONMENT}: unknown variable {_dotted((name,))}", in_environment=True
        )
        if names.setdefault(path, name) != name and environ[names[path]] != text:
            raise InvalidConfig(
                f"{ENVIRONMENT}: {names[path]} and {name} contradict each other: set one of them"
            )
        layers.put(path, _from_text(text, atoms, path, name), f"{ENVIRONMENT}: {name}")


def _add_overrides(layers: _Layers, overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        if value is None:
            continue
        path = tuple(name.split("."))
        atoms = _atoms_of(path, f"{COMMAND_LINE}: unknown key {_dotted(path)}")
        if isinstance(value, str):
            value = _from_text(value, atoms, path, COMMAND_LINE)  # noqa: PLW2901
        elif isinstance(value, Path):
            value = _absolute(str(value))  # noqa: PLW2901
        layers.put(path, value, COMMAND_LINE)


def _with_its_password(layers: _Layers, in_environment: Any) -> None:
    """A store named without a password is the one in the environment, if that differs in nothing
    else: so a flag's password is kept off the command line (`cli/secrets.py`)."""
    named = layers.values.get(_STORE_URL)
    if not isinstance(named, str) or not isinstance(in_environment, str):
        return
    try:
        if parse_url(named) == replace(parse_url(in_environment), password=None):
            layers.values[_STORE_URL] = in_environment
    except InvalidConfig:
        pass  # told of below


def _leaves(document: Mapping[str, Any], path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every setting in a document, and every table that can be none of ours."""
    for name, value in document.items():
        here = (*path, name)
        # A table may be a value itself, such as [wake.senders], whose keys are the user's own.
        is_section = isinstance(value, dict) and dict not in _known().get(_general(here), ())
        if is_section and not value and _declares(here):
            yield here, {}
        elif is_section and (value or _is_table(here)) and len(here) <= 3:
            yield from _leaves(value, here)
        else:
            yield here, value


def _from_text(text: str, atoms: frozenset[Any], path: _Path, origin: str) -> Any:
    """A text from environment or command line, as far as its type needs it split or parsed."""
    if atoms <= {int, float} and text.strip(" +-").lower() in {"inf", "infinity", "nan"}:
        raise _wrong(origin, path, text, "must be a finite number")
    if dict in atoms or (atoms & {tuple, list} and text.startswith("[")):
        try:
            return json.loads(text)
        except ValueError:
            raise _wrong(origin, path, text, "must be JSON") from None
    if atoms & {tuple, list}:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_absolute(part) for part in parts] if Path in atoms else parts
    return _absolute(text) if Path in atoms else text


def _absolute(text: str, base: Path | None = None) -> Path:
    try:
        return Path(base or "", Path(text).expanduser()).absolute()
    except RuntimeError:
        raise InvalidConfig(f"{text}: there is no such user's home directory") from None


# -- keys ------------------------------------------------------------------------------------------


@cache
def _known() -> dict[_Path, frozenset[Any]]:
    """Every key and the types in its annotation; `*` stands for a name of the user's own."""
    known: dict[_Path, frozenset[Any]] = {}
    tables: list[tuple[_Path, Any]] = [((), Settings)]
    while tables:
        place, model = tables.pop(0)
        for name, info in model.model_fields.items():
            here, annotation = (*place, name), info.annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                tables.append((here, annotation))
            elif here in _NAMED:
                tables.append(((*here, "*"), get_args(annotation)[1]))
            else:
                known[here] = _atoms(annotation)
    return known


def _named_place(path: _Path) -> _Path | None:
    """Where the user's own name in `path` stands: the path of the table that holds it."""
    for length in (1, 2):
        if path[:length] in _NAMED and len(path) > length:
            return path[:length]
    return None


def _general(path: _Path) -> _Path:
    """`path` with a name of the user's own replaced by `*`."""
    place = _named_place(path)
    return path if place is None else (*place, "*", *path[len(place) + 1 :])


def _declares(path: _Path) -> bool:
    """Whether `path` is a table that says something by being there."""
    place = _named_place(path)
    return place is not None and len(path) == len(place) + 1 and _NAMED[place].declares


def _is_table(path: _Path) -> bool:
    general = _general(path)
    return any(key[: len(path)] == general != key for key in _known())


def _atoms(annotation: Any) -> frozenset[Any]:
    """The plain types of an annotation, without None: `tuple[str, ...] | None` → tuple, str."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return frozenset(type(value) for value in args)
    inner = frozenset[Any]().union(*map(_atoms, args)) - {type(None), type(...)}
    if origin in (Union, UnionType):
        return inner
    return inner | {origin or annotation}


def _atoms_of(path: _Path, fault: str, in_environment: bool = False) -> frozenset[Any]:
    """The types of the key at `path`; raises InvalidConfig beginning with `fault`."""
    known, general, place = _known(), _general(path), _named_place(path)
    if place is not None and not _NAMED[place].is_valid(name := path[len(place)]):
        raise InvalidConfig(f"{fault}: {name!r} is no {_NAMED[place].what}: {_NAMED[place].rule}")
    if general in known:
        return known[general]
    if _is_table(path):
        raise InvalidConfig(f"{fault}: {'.'.join(path)} is a section, give one of its keys")
    name = "NAME" if place is None else path[len(place)]
    candidates = [tuple(name if part == "*" else part for part in key) for key in known]
    nearest = max(candidates, key=lambda key: _likeness(path, key))
    shown = _variable(nearest) if in_environment else ".".join(nearest)
    raise InvalidConfig(f"{fault}; the nearest known is {shown}")


def _dotted(path: _Path) -> str:
    """A key as people write it, on one line whatever it holds."""
    text = ".".join(path)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= 160 else text[:157] + "..."


def _likeness(path: _Path, key: _Path) -> float:
    """How near a known key is to what was written: as a whole, or by its last part alone."""
    whole = difflib.SequenceMatcher(None, ".".join(path), ".".join(key)).ratio()
    last = difflib.SequenceMatcher(None, path[-1], key[-1]).ratio()
    return max(whole, last) + 0.1 * (path[0] == key[0])


def _variable(path: _Path) -> str:
    shortcut = {place: name for name, place in SHORTCUTS.items()}.get(path)
    return shortcut or PREFIX + "__".join(path).upper()


# -- result ----------------------------------------------------------------------------------------


def _build(layers: _Layers) -> Settings:
    nested: dict[str, Any] = {}
    for path, value in layers.values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(layers.origins[path], path, value, "must be a finite number")
        table = nested
        for part in path[:-1]:
            table = table.setdefault(part, {})
        if value == {} and _declares(path):
            table.setdefault(path[-1], {})
        else:
            table[path[-1]] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        raise _first_fault(error, layers) from None
    return _without_password_in_url(settings, layers)


def _without_password_in_url(settings: Settings, layers: _Layers) -> Settings:
    """Move a password from the URL to where no repr shows it; one given apart from it wins."""
    store = settings.store
    if store.url is None:
        return settings
    try:
        address = parse_url(store.url)
    except InvalidConfig as error:
        raise InvalidConfig(f"{layers.origins['store', 'url']}: {error}") from None
    changes: dict[str, Any] = {"url": address.redacted()}
    if address.password is not None and store.password is None and store.password_file is None:
        changes["password"] = SecretStr(address.password)
    return settings.model_copy(update={"store": store.model_copy(update=changes)})


def _first_fault(error: ValidationError, layers: _Layers) -> InvalidConfig:
    """The first fault that pydantic found, as one line."""
    fault = error.errors(include_url=False, include_context=False)[0]
    rule = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    rule = rule[0].lower() + rule[1:].replace("valid tuple", "list")
    place = tuple(str(part) for part in fault["loc"])
    for path, origin in layers.origins.items():
        if place[: len(path)] == path:
            return _wrong(origin, path, layers.values[path], rule)
    # A rule about several keys of a section: whoever set one of them is meant.
    sources = dict.fromkeys(
        origin for path, origin in layers.origins.items() if path[: len(place)] == place
    )
    return InvalidConfig(f"{', '.join(sources) or 'defaults'}: {'.'.join(place)}: {rule}")


def _wrong(origin: str, path: _Path, value: Any, rule: str) -> InvalidConfig:
    """Key, value and rule; never the value of a secret, nor of a URL, which may hold one."""
    atoms = _known().get(path, frozenset())
    if SecretStr in atoms or path == ("store", "url"):
        shown = "(hidden)"
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        text = text if text.isprintable() else repr(text)
        shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidConfig(f"{origin}: {'.'.join(path)} = {shown}: {rule}")
