"""The generated parts of docs: every setting, the five profiles, the schema of the store.

`python -m novawf.reference --write` puts them between the markers in docs/configuration.md
and docs/store-schema.md; `--check` exits 1 when one differs, as the tests do. The text around the
markers is written by hand. Keys, defaults and ranges come from the settings models; what a key is
for comes from the model too, and from `MEANINGS` where the model does not say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from novawf.personality.profiles import PROFILES, Profile
from novawf.settings import NAMED, Settings
from novawf.store import keys

DIRECTORY = Path(__file__).resolve().parents[1] / "docs"
"""Where the pages of a source tree are."""

COMMAND = "python -m novawf.reference --write"

UNITS: Mapping[str, str] = {"_s": "s", "_h": "h", "_bytes": "bytes", "_ms": "ms"}
"""What the end of a key's name says about its unit."""

MEANINGS: Mapping[str, str] = {
    "fleet.novas": "Names of the Novas: a-z, 0-9, _ and -, up to 32, first a letter, not `fleet`.",
    "fleet.home": "Directory of the fleet's files; made with mode 0700.",
    "limits.requests_per_minute": "API permits in any 60 s, over the whole fleet.",
    "limits.requests_per_hour": "API permits in any hour, over the whole fleet.",
    "limits.concurrent": "API requests in flight at once, over the whole fleet.",
    "limits.request_timeout_s": "A permit's place is given away this long (and 6 s) after its "
    "grant, when nobody has reported the request's end.",
    "limits.breaker_failures": "Failures in a row that open the circuit breaker.",
    "supervision.max_restarts": "Restarts of one child within `period_s`; one more: quarantined.",
    "supervision.period_s": "See `max_restarts`.",
    "supervision.backoff_base_s": "The first restart is at once, the second after up to this, "
    "then doubling.",
    "supervision.backoff_cap_s": "Longest pause before a restart.",
    "supervision.healthy_after_s": "A child that was ready for so long begins at no pause again.",
    "supervision.spares": "Standby Novas: they take over a dead one's name at once.",
    "supervision.poison_after": "Novas that one task may kill before it is quarantined.",
    "supervision.drain_s": "When the fleet ends, work in hand may finish within this; then it is "
    "ended and handed back. 0 hands it back at once.",
    "supervision.shutdown_s": "How long after that a Nova may take to stop; then it is killed. A "
    "command that ignores SIGINT and SIGTERM takes twice `executors.grace_s`.",
    "supervision.starts_at_once": "First starts of children at the same time; 0: two a core. "
    "Restarts do not wait for these.",
    "safety.refresh_s": "How often the safety verdict is renewed.",
    "safety.valid_s": "How long a verdict holds; at least twice `refresh_s`.",
    "executors.head_bytes": "Of a task's output the beginning, kept in its log.",
    "executors.tail_bytes": "Of a task's output the end, kept in its log.",
    "executors.grace_s": "Between SIGINT, SIGTERM and SIGKILL when a task is ended; 0 kills at "
    "once.",
    "executors.python.path": "Directories to import your modules from, before PYTHONPATH and the "
    "directory in which the fleet was started.",
    "completion.celebration_s": "First part of the rest after a completion, when no work waits.",
    "completion.reflection_s": "Second part, after the share of tasks that is reflected on.",
    "completion.planning_s": "Third part.",
    "metrics.host": "Address that /metrics listens on: by default this machine alone.",
    "ray.address": "A running Ray cluster to join.",
    "ray.dashboard": "Whether Ray shows its dashboard.",
    "personality.NAME.cycle_s": "Longest pause between two idle looks at the queue.",
    "personality.NAME.reflection_share": "Share of completed tasks that is reflected on.",
    "personality.NAME.celebration": "Style of celebration, one word.",
    "personality.NAME.work_style": "Style of work, one word.",
    "personality.NAME.communication": "Style of communication, one word.",
    "personality.NAME.dream_probability": "Chance that an idle cycle turns into a dream.",
}
"""What keys are for, where their models do not say."""

NOT_YET = frozenset(
    {
        "limits.breaker_failures",
        "personality.NAME.work_style",
        "personality.NAME.communication",
        "personality.NAME.dream_probability",
    }
)
"""Keys that are checked and that nothing acts on yet."""

_NO_ACTION = "**Nothing acts on it yet.**"


class Setting(NamedTuple):
    """One row of the reference."""

    key: str
    default: str
    unit: str
    range: str
    meaning: str


def settings() -> Iterator[Setting]:
    """Every key, in the order of the models."""
    yield from _of_model("", Settings)
    for place, model in NAMED.items():
        yield from _of_model(".".join((*place, "NAME", "")), model)


def render() -> dict[str, dict[str, str]]:
    """Page → name of a marked part → its text."""
    return {
        "configuration.md": {"settings": _settings_text(), "profiles": _profiles_text()},
        "store-schema.md": {"schema": _schema_text()},
    }


def stale(directory: Path = DIRECTORY) -> list[str]:
    """The pages whose marked parts differ from what they are generated from."""
    return [
        page
        for page, parts in render().items()
        if (directory / page).read_text() != _filled((directory / page).read_text(), parts)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the pages; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m novawf.reference")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the generated parts")
    mode.add_argument("--check", action="store_true", help="exit 1 when one differs")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    options = parser.parse_args(argv)
    old = stale(options.directory)
    for page in old:
        path = options.directory / page
        if options.write:
            path.write_text(_filled(path.read_text(), render()[page]))
            sys.stdout.write(f"wrote {path}\n")
        else:
            sys.stderr.write(f"{path} differs from what it is generated from: run {COMMAND}\n")
    return 1 if old and options.check else 0


# -- settings --------------------------------------------------------------------------------------


def _of_model(prefix: str, model: type[BaseModel]) -> Iterator[Setting]:
    tables = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            tables.append((f"{prefix}{name}.", annotation))
        elif tuple(f"{prefix}{name}".split(".")) not in NAMED:
            yield _setting(prefix + name, info)
    for place, table in tables:
        yield from _of_model(place, table)


def _setting(key: str, info: FieldInfo) -> Setting:
    meaning = info.description or MEANINGS.get(key)
    if meaning is None:
        raise LookupError(f"{key} has no meaning: describe its field, or add it to MEANINGS")
    if meaning.partition(" ")[0].isalpha():
        meaning = meaning[0].upper() + meaning[1:]
    meaning += "" if meaning.endswith(".") else "."
    if key in NOT_YET:
        meaning = f"{meaning} {_NO_ACTION}"
    return Setting(key, _default(key, info), _unit(key), _range(info), meaning)


def _default(key: str, info: FieldInfo) -> str:
    if key == "fleet.home":
        return "`~/.novawf`"
    value = info.default
    if value is None or value is PydanticUndefined:
        return "the profile's" if key.startswith("personality.") else "none"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _unit(key: str) -> str:
    return next((unit for end, unit in UNITS.items() if key.endswith(end)), "")


def _range(info: FieldInfo) -> str:
    """Bounds, or the words that are allowed."""
    if words := _literals(info.annotation):
        return ", ".join(f"`{word}`" for word in words)
    bounds = {}
    for rule in info.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if (bound := getattr(rule, name, None)) is not None:
                bounds[sign] = f"{sign} {bound:,g}" if abs(bound) < 10**6 else f"{sign} {bound:,}"
    return ", ".join(bounds.values())


def _literals(annotation: Any) -> list[str]:
    """The words of a Literal, also of one that may be absent."""
    if get_origin(annotation) in (Union, UnionType):
        return [word for part in get_args(annotation) for word in _literals(part)]
    return [value for value in get_args(annotation) if isinstance(value, str)]


def _settings_text() -> str:
    sections: dict[str, list[Setting]] = {}
    for setting in settings():
        sections.setdefault(setting.key.rpartition(".")[0], []).append(setting)
    parts = []
    for section, rows in sections.items():
        cells = [
            (f"`{row.key.rpartition('.')[2]}`", row.default, row.unit, row.range, row.meaning)
            for row in rows
        ]
        table = _table(("key", "default", "unit", "allowed", "meaning"), cells)
        parts.append(f"### `[{section}]`\n\n{table}")
    return "\n\n".join(parts)


def _profiles_text() -> str:
    names = list(Profile.model_fields)
    rows = [
        (f"`{nova}`", *(_value(getattr(profile, n)) for n in names))
        for nova, profile in _profiles()
    ]
    return _table(("Nova", *(f"`{name}`" for name in names)), rows)


def _profiles() -> Iterator[tuple[str, Profile]]:
    yield from PROFILES.items()


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# -- schema and pages ------------------------------------------------------------------------------


def _schema_text() -> str:
    rows = [(f"`{row.name}`", row.type, row.ttl, row.meaning) for row in keys.SCHEMA]
    return _table(("key", "type", "TTL", "meaning"), rows)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def _filled(page: str, parts: Mapping[str, str]) -> str:
    """The page with its marked parts replaced. Raises LookupError when a marker is missing."""
    for name, text in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise LookupError(f"the page has no part between {begin} and {end}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    sys.exit(main())
