"""Keepers of a node that hang are noticed: stand-ins for actors of other machines."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from actors import nodes
from actors.keepers import KeepersConfig
from actors.nodes import Node, Nodes


class Keepers:
    """Answers so many questions, then none; `dies` ends it."""

    def __init__(self, answers: float) -> None:
        self.answers = answers
        self.asked = 0
        self.dies = asyncio.Event()

    async def about(self) -> dict[str, Any]:
        self.asked += 1
        if self.asked > self.answers:
            await asyncio.Event().wait()
        return {}

    async def join(self) -> None:
        await self.dies.wait()
        raise ConnectionError("it died")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "ASK_S", 0.01)
    monkeypatch.setattr(nodes, "ANSWER_S", 0.01)


def watched(keepers: Keepers) -> asyncio.Task[None]:
    fleet = Nodes(cast("KeepersConfig", None), lambda *_, **__: None, dict, home_node="a")
    node = Node("a", cast("Any", keepers), "machine", "/run", 0)
    return asyncio.create_task(fleet._until_gone(node))


async def test_keepers_that_stop_answering_are_given_up() -> None:
    keepers = Keepers(answers=2)
    async with asyncio.timeout(5):
        await watched(keepers)
    assert keepers.asked == 2 + nodes.SILENT


async def test_the_death_of_keepers_is_told_as_it_is() -> None:
    keepers = Keepers(answers=float("inf"))
    watch = watched(keepers)
    while keepers.asked < nodes.SILENT + 2:
        await asyncio.sleep(0)
    assert not watch.done()
    keepers.dies.set()
    with pytest.raises(ConnectionError):
        await watch
