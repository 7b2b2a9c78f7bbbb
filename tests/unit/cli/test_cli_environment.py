"""Which place a command means: flags before environment, and `--home` before a named store."""

from __future__ import annotations

from pathlib import Path

import pytest

from novawf.cli.environment import locate
from novawf.errors import InvalidConfig

URL = "redis://db.example:7000/0"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file here, and a home of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOVAWF_HOME", str(tmp_path / "home"))


def environ(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"NOVAWF_HOME": str(tmp_path / "home"), **variables}


def test_without_flags_it_is_the_default_home(tmp_path: Path) -> None:
    assert locate(None, None, environ(tmp_path)) == (tmp_path / "home", None)


def test_a_home_is_made_absolute(tmp_path: Path) -> None:
    assert locate(Path("other"), None, environ(tmp_path)).home == tmp_path / "other"


def test_a_store_flag_is_taken_as_it_is(tmp_path: Path) -> None:
    place = locate(None, URL, environ(tmp_path))
    assert place.store is not None
    assert place.store.redacted() == URL


@pytest.mark.parametrize("name", ["NOVAWF_STORE_URL", "NOVAWF_STORE__URL"])
def test_a_store_in_the_environment_counts_without_flags(tmp_path: Path, name: str) -> None:
    place = locate(None, None, environ(tmp_path, **{name: URL}))
    assert place.store is not None
    assert place.store.redacted() == URL


def test_a_home_flag_is_nearer_than_a_store_in_the_environment(tmp_path: Path) -> None:
    assert locate(Path("x"), None, environ(tmp_path, NOVAWF_STORE_URL=URL)).store is None


def test_a_password_in_the_environment_goes_with_the_store_flag(tmp_path: Path) -> None:
    place = locate(None, URL, environ(tmp_path, NOVAWF_STORE__PASSWORD="secret"))
    assert place.store is not None
    assert place.store.password == "secret"


def test_a_password_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\nnot this\n")
    place = locate(None, URL, environ(tmp_path, NOVAWF_STORE__PASSWORD_FILE=str(file)))
    assert place.store is not None
    assert place.store.password == "secret"


def test_a_password_file_that_is_missing_is_named(tmp_path: Path) -> None:
    variables = environ(tmp_path, NOVAWF_STORE__PASSWORD_FILE=str(tmp_path / "nothing"))
    with pytest.raises(InvalidConfig, match="nothing"):
        locate(None, URL, variables)


def test_the_configuration_file_here_names_the_home(tmp_path: Path) -> None:
    (tmp_path / "novawf.toml").write_text('[fleet]\nhome = "fleet"\n')
    assert locate(None, None, {}).home == tmp_path / "fleet"
