"""What all commands share: `--home`, `--store`, `--json`, and how they reach a fleet.

The three are understood before a command's name and after it. A command is written as a function
whose first parameter is an `Invocation`; `command` gives it the three options and runs it.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from novawf.cli.output import Output
from novawf.cli.run import BROKEN_PIPE
from novawf.cli.secrets import hide_named

if TYPE_CHECKING:
    from novawf.cli.environment import Place
    from novawf.client import Connecting

P = ParamSpec("P")
R = TypeVar("R")

HomeOption = Annotated[
    Path | None, typer.Option("--home", metavar="DIR", help="The fleet's home directory.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="Talk to this store; no fleet needs to run."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options that every command has, as given on the command line."""

    home: Path | None = None
    store: str | None = None
    json: bool = False

    def merged(self, home: Path | None, store: str | None, json: bool) -> Invocation:
        """With those that stand after the command's name, which win."""
        return Invocation(home or self.home, store or self.store, json or self.json)

    @property
    def out(self) -> Output:
        """Where the command's answer goes."""
        return Output(self.json)

    def place(self) -> Place:
        """The home and store that are meant. Raises InvalidConfig."""
        from novawf.cli.environment import locate  # noqa: PLC0415 - see the package's docstring

        place = locate(self.home, self.store)
        hide_named(place.home)
        return place

    def fleet(self) -> Connecting:
        """A connection to the fleet that is meant: `async with call.fleet() as fleet`."""
        from novawf.client import Fleet  # noqa: PLC0415

        place = self.place()
        return Fleet.connect(home=place.home, store=place.store)


def command(
    app: typer.Typer, name: str, *examples: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register `function(call, ...)`, plain or async, as the command `name`, with examples.

    An integer it returns is the exit code.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(
            ctx: typer.Context, home: Path | None, store: str | None, json: bool, **given: Any
        ) -> None:
            before = ctx.obj if isinstance(ctx.obj, Invocation) else Invocation()
            try:
                result = function(before.merged(home, store, json), **given)
                if inspect.iscoroutine(result):
                    result = asyncio.run(result)
            except BrokenPipeError:
                # Kept from typer, which would answer it with exit code 1.
                raise typer.Exit(BROKEN_PIPE) from None
            if result:
                raise typer.Exit(result)

        _show_as(run, function)
        app.command(name, epilog=example_text(examples), short_help=_short(function))(run)
        return function

    return register


def example_text(examples: tuple[str, ...]) -> str:
    """Examples as the last part of a help text."""
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)


def _short(function: Callable[..., Any]) -> str:
    """The first clause of the docstring: what fits into a list of commands."""
    return re.split(r"[:;.]", (function.__doc__ or "").strip(), maxsplit=1)[0]


def _show_as(run: Any, function: Callable[..., Any]) -> None:
    """Give `run` the parameters of `function`, less its first, and the common options."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = [
        inspect.Parameter("home", keyword, default=None, annotation=HomeOption),
        inspect.Parameter("store", keyword, default=None, annotation=StoreOption),
        inspect.Parameter("json", keyword, default=False, annotation=JsonOption),
    ]
    context = inspect.Parameter("ctx", keyword, annotation=typer.Context)
    parameters = [context, *(p.replace(kind=keyword) for p in own), *common]
    run.__signature__ = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
