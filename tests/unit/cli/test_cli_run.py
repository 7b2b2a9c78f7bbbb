"""Whatever happens in a command, the user gets one line, and the shell the right code."""

from __future__ import annotations

import json

import pytest
import typer

from novawf.cli.run import run_app, wants_json
from novawf.errors import FleetNotRunning, InvalidTask, NovawfError, Refused


def an_app(error: BaseException | None = None) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    @app.command()
    def work(title: str = "", count: int = 0) -> None:
        if error is not None:
            raise error

    @app.command()
    def rest() -> None:
        raise typer.Exit(7)

    return app


def run(capsys: pytest.CaptureFixture[str], app: typer.Typer, *argv: str) -> tuple[int, str, str]:
    code = run_app(app, "prog", list(argv))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InvalidTask("cwd", "is missing"), 2),
        (FleetNotRunning("no fleet runs"), 3),
        (Refused("it is completed"), 1),
        (TimeoutError("it took 5 s"), 1),
    ],
)
def test_an_error_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], error: NovawfError, expected: int
) -> None:
    code, out, err = run(capsys, an_app(error), "work")
    assert (code, out, err) == (expected, "", f"prog: {error}\n")


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, an_app(Refused("one\ntwo\n  three")), "work")
    assert err == "prog: one two three\n"


def test_with_json_an_error_is_one_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    app = an_app()
    code, out, err = run(capsys, app, "work", "--count", "x", "--json")
    assert json.loads(out)["exit_code"] == code == 2
    assert len(err.splitlines()) == 1


def test_what_follows_the_double_dash_is_no_flag_of_ours() -> None:
    assert wants_json(["submit", "--json", "--", "ls"])
    assert not wants_json(["submit", "--", "ls", "--json"])


def test_an_unknown_flag_names_the_nearest_known(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, an_app(), "work", "--titel", "x")
    assert code == 2
    assert err == "prog: unknown option --titel of `prog work`: did you mean --title?\n"


def test_an_unknown_flag_unlike_any_points_to_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, an_app(), "work", "--zzzzzz")
    assert err == "prog: unknown option --zzzzzz of `prog work`; see `prog work --help`\n"


@pytest.mark.parametrize("argv", [("sleep",), ("work", "--count", "x"), ("work", "--title")])
def test_wrong_usage_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]
) -> None:
    code, out, err = run(capsys, an_app(), *argv)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("prog: ")


def test_an_interrupt_is_130_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, an_app(KeyboardInterrupt()), "work") == (130, "", "")


def test_a_fault_of_our_own_names_its_place_and_shows_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, an_app(KeyError("x")), "work")
    assert code == 1
    assert err.startswith("prog: internal error at test_cli_run.py:")
    assert len(err.splitlines()) == 1


def test_a_command_may_choose_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, an_app(), "rest") == (7, "", "")
