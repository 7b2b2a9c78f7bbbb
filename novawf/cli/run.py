"""Runs a typer application as all our programs run: one line per error, fixed exit codes.

0 done, 1 the asked-for thing failed, 2 wrong usage or bad input, 3 nothing within reach, 130 an
interrupt. With `--json` the error is also one JSON document on stdout. No traceback ever reaches a
user; a fault of our own is named with the place it came from.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command

from novawf.cli.secrets import keep_from_sight
from novawf.errors import NovawfError
from novawf.telemetry.masking import mask

INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell reports of any program whose reader went away."""

# Older versions of typer take these from click, newer ones bring their own: by way of a class that
# all of them export, both are found: ClickException <- UsageError <- BadParameter.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def run_app(app: typer.Typer, prog: str, argv: Sequence[str] | None = None) -> int:
    """Run `app` with `argv` (default: this process's) and return the exit code.

    `prog` is the program's name in help and errors.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        keep_from_sight(arguments)
    try:
        code = _run(app, prog, arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return BROKEN_PIPE
    except OSError:  # of the last flush; whatever did not fit was told of by then
        _drop_stdout()
        return code or 1
    return code


def report(prog: str, message: str, exit_code: int, *, as_json: bool) -> None:
    """Say what went wrong on one line of stderr, and as JSON where it was asked for."""
    line = mask(" ".join(message.split()))
    if as_json:
        with suppress(OSError):  # it may be about this very output
            print(json.dumps({"error": line, "exit_code": exit_code}))  # noqa: T201 - the CLI's output
    print(f"{prog}: {line}", file=sys.stderr)  # noqa: T201


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the flags; what follows `--` are no flags of ours."""
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in flags


def _run(app: typer.Typer, prog: str, arguments: list[str]) -> int:
    code: Any = None
    try:
        code = get_command(app).main(args=arguments, prog_name=prog, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        raise
    except Exception as error:
        message, code = _explain(error, prog)
        report(prog, message, code, as_json=wants_json(arguments))
    return code if isinstance(code, int) else 0


def _explain(error: Exception, prog: str) -> tuple[str, int]:
    """The message and the exit code of an error."""
    if isinstance(error, NovawfError):
        return str(error), error.exit_code
    if isinstance(error, _CommandLineError):
        return _usage(error, prog), 2
    if isinstance(error, TimeoutError):
        return str(error) or "it took too long", 1
    return _fault(error), 1


def _usage(error: Any, prog: str) -> str:
    """What was wrong with the command line, and what comes nearest to it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else prog
    name = getattr(error, "option_name", None)
    if name is not None and hasattr(error, "possibilities"):
        return _unknown_option(name, context, path)
    text = error.format_message().rstrip(".")
    text = text[:1].lower() + text[1:]
    return text if "mean" in text else f"{text}; see `{path} --help`"


def _unknown_option(name: str, context: Any, path: str) -> str:
    parameters = [] if context is None else context.command.get_params(context)
    text = f"unknown option {name} of `{path}`"
    if any(parameter.nargs == -1 and not _long(parameter) for parameter in parameters):
        text += " (the flags of a command to run come after --)"
    known = sorted({option for parameter in parameters for option in _long(parameter)})
    if near := get_close_matches(name, known, n=1, cutoff=0.5):
        return f"{text}: did you mean {near[0]}?"
    return f"{text}; see `{path} --help`"


def _long(parameter: Any) -> list[str]:
    """The long options by which a parameter is given; none for an argument."""
    if parameter.param_type_name == "argument":
        return []
    options = (*parameter.opts, *parameter.secondary_opts)
    return [option for option in options if option.startswith("--")]


def _fault(error: Exception) -> str:
    """A fault of our own, with its place: there is no traceback to look it up in."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f" at {Path(code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"internal error{place}: {type(error).__name__}: {error}; please report it"


def _drop_stdout() -> None:
    """Point stdout to nowhere, so that the interpreter's last flush does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
