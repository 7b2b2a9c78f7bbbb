"""docs/client.md says what the client does: its examples run, and it names every method."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

from novawf import errors
from novawf.client import Fleet
from novawf.store.connect import StoreAddress
from novawf.tasks.model import TaskSpec

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
CLIENT = PAGE[PAGE.index("## The client") : PAGE.index("## Callables")]
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", CLIENT, re.DOTALL | re.MULTILINE)
STEPS = EXAMPLES[1:]
"""All but the first, a whole program, which `tests/actors/test_why.py` runs against a fleet."""


async def test_the_examples_run_in_their_order(
    redis: Any, valkey_server: StoreAddress, tmp_path: Path
) -> None:
    """Each is the body of an async function; names go on from one to the next."""
    assert len(STEPS) >= 7
    async with Fleet.connect(home=tmp_path, store=valkey_server) as fleet:
        names: dict[str, Any] = {"fleet": fleet}
        for step in STEPS:
            code = compile(step, "docs/client.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            running = eval(code, names)
            if inspect.isawaitable(running):
                await running


def test_every_public_method_is_described() -> None:
    """And no example shows one that does not exist."""
    public = {name for name in vars(Fleet) if not name.startswith("_")}
    named = set(re.findall(r"`(\w+)\(", CLIENT)) | set(re.findall(r"fleet\.(\w+)", CLIENT))
    named |= set(re.findall(r"Fleet\.(\w+)\(", CLIENT))
    assert public - named == set()
    assert set(re.findall(r"fleet\.(\w+)\(", CLIENT)) <= public


def test_every_field_of_a_task_is_described() -> None:
    table = PAGE[PAGE.index("## A task") : PAGE.index("## Callables")]
    assert {name for name in TaskSpec.model_fields if f"`{name}`" not in table} == set()


def test_every_error_that_is_named_exists() -> None:
    section = CLIENT[CLIENT.index("### Errors") : CLIENT.index("### Types")]
    named = set(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))
    names = {name for row in named for name in re.findall(r"`(\w+)`", row)} - {"TimeoutError"}
    assert names
    assert {name for name in names if not hasattr(errors, name)} == set()
