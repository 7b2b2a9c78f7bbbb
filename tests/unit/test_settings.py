"""Where settings come from, who wins, and how a wrong one is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from novawf.errors import InvalidConfig
from novawf.settings import Settings, default_home, ensure_home, hide_secrets, load_settings
from novawf.telemetry.masking import forget_named, mask

SECRET = "hunter2-secret"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and a home of its own for `~`."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))


def load(
    toml: str | None = None, overrides: dict[str, Any] | None = None, **environ: str
) -> Settings:
    if toml is not None:
        Path("novawf.toml").write_text(toml)
    return load_settings(None, overrides or {}, environ)


def refusal(
    toml: str | None = None, overrides: dict[str, Any] | None = None, **environ: str
) -> str:
    with pytest.raises(InvalidConfig) as refused:
        load(toml, overrides, **environ)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- who wins ------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_public_surface(tmp_path: Path):
    settings = load()
    assert settings.fleet.novas == ("torch", "echo", "helix")
    assert settings.fleet.pace == 1.0
    assert settings.fleet.home == tmp_path / "user" / ".novawf"
    assert settings.limits.requests_per_minute == 30
    assert settings.supervision.max_restarts == 5
    assert settings.tasks.retries == 3
    assert settings.metrics.port == 9464
    assert settings.metrics.host == "127.0.0.1"
    assert settings.ray.dashboard_port is None  # 8265, or the next one that is free
    assert settings.personality == {}


def test_flags_win_over_environment_over_file_over_defaults():
    toml = "[limits]\nconcurrent = 2\nrequests_per_minute = 12\nrequests_per_hour = 22\n"
    settings = load(
        toml,
        {"limits.concurrent": 4, "limits.requests_per_hour": None},
        NOVAWF_LIMITS__CONCURRENT="3",
        NOVAWF_LIMITS__REQUESTS_PER_MINUTE="13",
    )
    assert settings.limits.concurrent == 4
    assert settings.limits.requests_per_minute == 13
    assert settings.limits.requests_per_hour == 22
    assert settings.limits.breaker_failures == 5


def test_a_file_given_by_name_is_the_only_one_read(tmp_path: Path):
    Path("novawf.toml").write_text("[tasks]\nretries = 1\n")
    given = tmp_path / "other.toml"
    given.write_text("[fleet]\npace = 2\n")
    settings = load_settings(given, {}, {})
    assert (settings.fleet.pace, settings.tasks.retries) == (2.0, 3)


def test_the_file_in_the_home_is_read_when_there_is_none_here(tmp_path: Path):
    home = tmp_path / "h"
    home.mkdir()
    (home / "novawf.toml").write_text("[tasks]\nretries = 7\n")
    assert load(None, {"fleet.home": home}).tasks.retries == 7
    assert load(NOVAWF_HOME=str(home)).tasks.retries == 7
    assert load("[fleet]\npace = 1\n", NOVAWF_HOME=str(home)).tasks.retries == 3


def test_empty_sections_and_empty_variables_set_nothing():
    settings = load("[limits]\n[personality.torch]\n", NOVAWF_HOME="", NOVAWF_STORE_URL="")
    assert settings == load("")


def test_shortcut_variables_stand_for_their_keys(tmp_path: Path):
    settings = load(
        NOVAWF_HOME=str(tmp_path / "h"),
        NOVAWF_STORE_URL="redis://db.example:7000/2",
        NOVAWF_STORE_PASSWORD=SECRET,
    )
    assert settings.fleet.home == tmp_path / "h"
    assert settings.store.url == "redis://db.example:7000/2"
    assert settings.store.password is not None
    assert settings.store.password.get_secret_value() == SECRET


def test_two_names_of_one_variable_must_agree():
    assert "NOVAWF_STORE_URL and NOVAWF_STORE__URL contradict" in refusal(
        NOVAWF_STORE_URL="redis://a", NOVAWF_STORE__URL="redis://b"
    )


def test_lists_in_flags_and_variables_are_separated_by_commas():
    assert load(NOVAWF_FLEET__NOVAS="ada, bob").fleet.novas == ("ada", "bob")
    assert load(None, {"fleet.novas": "ada,bob"}).fleet.novas == ("ada", "bob")
    assert load(None, {"fleet.novas": ("ada",)}).fleet.novas == ("ada",)


def test_switches_are_read_from_variables():
    assert load(NOVAWF_RAY__DASHBOARD="false").ray.dashboard is False


def test_profiles_come_from_file_and_environment_together():
    settings = load("[personality.nimbus]\ncycle_s = 9\n", NOVAWF_PERSONALITY__TORCH__CYCLE_S="8.5")
    assert settings.personality["nimbus"].cycle_s == 9
    assert settings.personality["torch"].cycle_s == 8.5


def test_a_section_within_a_section_is_read_from_file_and_environment():
    toml = '[executors]\ngrace_s = 1\n[executors.python]\npath = ["/srv/jobs"]\n'
    assert load(toml).executors.python.path == (Path("/srv/jobs"),)
    settings = load(toml, NOVAWF_EXECUTORS__PYTHON__PATH="/a,/b")
    assert settings.executors.python.path == (Path("/a"), Path("/b"))
    assert settings.executors.grace_s == 1


def test_paths_in_a_file_are_relative_to_it_and_elsewhere_to_here(tmp_path: Path):
    given = tmp_path / "etc" / "n.toml"
    given.parent.mkdir()
    given.write_text('[fleet]\nhome = "data"\n[store]\npassword_file = "~/pw"\n')
    settings = load_settings(given, {}, {})
    assert settings.fleet.home == tmp_path / "etc" / "data"
    assert settings.store.password_file == tmp_path / "user" / "pw"
    assert load(None, {"fleet.home": Path("x")}).fleet.home == tmp_path / "work" / "x"
    assert load(NOVAWF_HOME="x").fleet.home == tmp_path / "work" / "x"


def test_what_the_fleet_sets_for_its_children_is_no_setting():
    names = ("TASK_ID", "ATTEMPT", "NOVA", "RUN_ID", "KEEPER")
    assert load(**{f"NOVAWF_{name}": "x" for name in names}, OTHER="y") == load()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVAWF_TASKS__RETRIES", "9")
    assert load_settings(None, {}).tasks.retries == 9


def test_settings_can_be_sent_to_another_process_and_not_changed():
    settings = load("[personality.torch]\ncycle_s = 1\n")
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(ValueError, match="frozen"):
        settings.fleet = settings.fleet


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "unknown", "nearest"),
    [
        ("[limits]\nconcurent = 3\n", "limits.concurent", "limits.concurrent"),
        ("[limit]\nconcurrent = 3\n", "limit.concurrent", "limits.concurrent"),
        ('novas = ["a"]\n', "novas", "fleet.novas"),
        ("[fleet]\nrequests_per_minute = 3\n", "fleet.requests_per_minute", "limits.requests_per_"),
        (
            "[personality.torch]\ncycle = 3\n",
            "personality.torch.cycle",
            "personality.torch.cycle_s",
        ),
        ("[executors.python]\npaths = []\n", "executors.python.paths", "executors.python.path"),
        ("[suprvision]\n", "suprvision", "supervision."),
        ("[fleet.a.b.c.d]\n", "fleet.a", "fleet."),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_the_nearest_known(
    toml: str, unknown: str, nearest: str
):
    message = refusal(toml)
    assert message.startswith(f"novawf.toml: unknown key {unknown}")
    assert f"; the nearest known is {nearest}" in message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NOVAWF_LIMITS__CONCURENT", "NOVAWF_LIMITS__CONCURRENT"),
        ("NOVAWF_LIMITS_CONCURRENT", "NOVAWF_LIMITS__CONCURRENT"),
        ("NOVAWF_STOREURL", "NOVAWF_STORE_URL"),
        ("NOVAWF_PERSONALITY__TORCH__CYCLE", "NOVAWF_PERSONALITY__TORCH__CYCLE_S"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known(name: str, nearest: str):
    assert refusal(**{name: "3"}) == (
        f"environment: unknown variable {name}; the nearest known is {nearest}"
    )


def test_an_unknown_key_of_a_flag_is_our_mistake_and_named_too():
    assert refusal(None, {"limits.x": 1}).startswith("command line: unknown key limits.x;")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[limits]\nconcurrent = 0\n", "limits.concurrent = 0: should be greater than or equal"),
        ('[limits]\nconcurrent = "3"\n', "limits.concurrent = 3: must be written without quotes"),
        ("[limits]\nconcurrent = true\n", "limits.concurrent = true: must not be true or false"),
        ("[limits]\nconcurrent = 1.5\n", "limits.concurrent = 1.5: should be a valid integer"),
        ("[fleet]\npace = -1\n", "fleet.pace = -1: should be greater than or equal to 0"),
        ("[tasks]\nlease_s = inf\n", "tasks.lease_s = inf: must be a finite number"),
        ("[tasks]\nlease_s = nan\n", "tasks.lease_s = nan: must be a finite number"),
        ('[fleet]\nnovas = "ada"\n', "fleet.novas = ada: should be a list"),
        ("[fleet]\nnovas = []\n", "fleet.novas = []: tuple should have at least 1 item"),
        ('[fleet]\nnovas = ["a", "b", "a"]\n', "fleet.novas = ['a', 'b', 'a']: a is named twice"),
        ('[fleet]\nnovas = ["Bad Name"]\n', "fleet.novas = ['Bad Name']: 'Bad Name' is no"),
        ('[fleet]\nnovas = ["fleet"]\n', "fleet.novas = ['fleet']: 'fleet' is no Nova name"),
        ("[safety]\nvalid_s = 1\n", "safety: valid_s must be at least twice refresh_s"),
        ("[store]\nlinger_s = 2020-01-01\n", "store.linger_s = 2020-01-01: should be a valid"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_key_and_rule(toml: str, message: str):
    assert refusal(toml).startswith(f"novawf.toml: {message}")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("NOVAWF_LIMITS__CONCURRENT", "many", "limits.concurrent = many: should be a valid"),
        ("NOVAWF_TASKS__LEASE_S", "-inf", "tasks.lease_s = -inf: must be a finite number"),
        ("NOVAWF_FLEET__NOVAS", "a,a", "fleet.novas = ['a', 'a']: a is named twice"),
        ("NOVAWF_FLEET__NOVAS", "[a", "fleet.novas = [a: must be JSON"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named_with_key_and_rule(variable: str, text: str, message: str):
    assert f"{variable}: {message}" in refusal(**{variable: text})


def test_a_profile_of_a_name_that_no_nova_may_have_is_refused():
    assert "'Big One' is no Nova name" in refusal('[personality."Big One"]\ncycle_s = 1\n')


@pytest.mark.parametrize(
    ("toml", "section"),
    [
        ("limits = 3\n", "limits"),
        ("personality = 3\n", "personality"),
        ("[personality]\ntorch = 3\n", "personality.torch"),
        ("[executors]\npython = 3\n", "executors.python"),
    ],
)
def test_a_section_is_not_a_key(toml: str, section: str):
    assert f"{section} is a section, give one of its keys" in refusal(toml)


def test_a_key_is_not_a_section():
    assert "unknown key limits.concurrent.x;" in refusal("[limits.concurrent]\nx = 1\n")


def test_a_file_that_is_no_toml_is_refused_with_its_line():
    assert refusal("[fleet]\npace = \n").startswith("novawf.toml:2: is not TOML: invalid value")
    assert refusal("[fleet]\n\npace").startswith("novawf.toml:3: is not TOML: ")


def test_a_file_that_is_no_text_is_refused_with_its_line():
    Path("novawf.toml").write_bytes(b"[fleet]\n# \xff\n")
    assert refusal() == "novawf.toml:2: is not UTF-8 text"


def test_a_file_asked_for_must_be_there():
    with pytest.raises(InvalidConfig, match=r"gone\.toml: cannot be read: No such file"):
        load_settings(Path("gone.toml"), {}, {})


def test_a_refusal_is_one_line_whatever_is_refused():
    refusal('"a\\nb" = 1\n')
    refusal('[fleet]\nnovas = "a\\nb"\n')
    refusal(NOVAWF_LIMITS__CONCURRENT="1\n2")


def test_an_absurdly_nested_file_is_refused():
    assert "novawf.toml" in refusal("a = " + "[" * 5000)
    assert "unknown key" in refusal(".".join(["a"] * 5000) + " = 1\n")


# -- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", [f"redis://:{SECRET}@db/0", f"rediss://me:{SECRET}@db:7/0", f"unix://:{SECRET}@/s.sock"]
)
def test_a_password_in_the_url_is_kept_and_never_shown(url: str):
    settings = load(NOVAWF_STORE_URL=url)
    assert settings.store.password is not None
    assert settings.store.password.get_secret_value() == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)
    assert SECRET not in settings.model_dump_json()


def test_a_password_given_apart_from_the_url_wins():
    settings = load(NOVAWF_STORE_URL="redis://:old@db", NOVAWF_STORE_PASSWORD=SECRET)
    assert settings.store.password is not None
    assert settings.store.password.get_secret_value() == SECRET
    given = load('[store]\npassword_file = "pw"\n', NOVAWF_STORE_URL="redis://:old@db")
    assert given.store.password is None


@pytest.mark.parametrize(
    "toml",
    [
        f'[store]\npasword = "{SECRET}"\n',
        f'[store]\nurl = "http://:{SECRET}@db"\n',
        f'[store]\nurl = "redis://:{SECRET}@db:port"\n',
        f'[store]\nurl = ["redis://:{SECRET}@db"]\n',
        f'[store]\npassword = ["{SECRET}"]\n',
        f'[store]\npassword = "{SECRET}\n',
    ],
)
def test_no_error_shows_a_password(toml: str):
    assert SECRET not in refusal(toml)


# -- the home ------------------------------------------------------------------------------------


def test_the_default_home_is_in_the_users_home_unless_a_variable_says_otherwise(tmp_path: Path):
    assert default_home({}) == tmp_path / "user" / ".novawf"
    assert default_home({"NOVAWF_HOME": "/srv/n"}) == Path("/srv/n")


def test_a_home_is_created_for_its_owner_alone(tmp_path: Path):
    home = tmp_path / "a" / "b"
    ensure_home(home)
    assert home.stat().st_mode & 0o777 == 0o700
    ensure_home(home)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_home_that_others_may_write_to_is_refused_with_the_remedy(tmp_path: Path, mode: int):
    home = tmp_path / "h"
    home.mkdir()
    home.chmod(mode)
    with pytest.raises(InvalidConfig, match=rf"others may write to it \(mode {mode:04o}\).*chmod"):
        ensure_home(home)


def test_a_home_that_is_a_file_is_refused(tmp_path: Path):
    (tmp_path / "h").write_text("")
    with pytest.raises(InvalidConfig, match="cannot be created"):
        ensure_home(tmp_path / "h")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_home_of_somebody_else_is_refused(tmp_path: Path):
    home = tmp_path / "h"
    home.mkdir()
    os.chown(home, 12345, -1)
    with pytest.raises(InvalidConfig, match="belongs to user 12345, not to you"):
        ensure_home(home)


# -- named limits ----------------------------------------------------------------------------------


def test_limits_are_named_by_paths_and_may_set_nothing():
    text = """
    [limits.named.anthropic]
    concurrent = 2
    [limits.named."anthropic/alice"]
    [limits.named.openai]
    requests_per_minute = 7
    """
    named = load(text, NOVAWF_LIMITS__NAMED__OPENAI__REQUESTS_PER_HOUR="9").limits.named
    assert sorted(named) == ["anthropic", "anthropic/alice", "openai"]
    assert named["anthropic"].concurrent == 2
    assert named["anthropic/alice"].concurrent is None
    assert (named["openai"].requests_per_minute, named["openai"].requests_per_hour) == (7, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[limits.named."a b"]\nconcurrent = 1', "'a b' is no name of a limit: a path of up to"),
        ('[limits.named."/a"]', "'/a' is no name of a limit"),
        ("[limits.named.a]\nconcurent = 1", "nearest known is limits.named.a.concurrent"),
        ("[limits.named.a]\nconcurrent = 0", "limits.named.a.concurrent = 0: "),
        ("[limits.named]\na = 1", "limits.named.a is a section"),
    ],
)
def test_a_wrong_named_limit_is_told_with_its_place(text: str, said: str):
    with pytest.raises(InvalidConfig, match=said):
        load(text)


@pytest.mark.parametrize(
    ("flag", "password"),
    [
        ("redis://db:1/0", SECRET),
        ("redis://db:1", SECRET),
        ("redis://db:2/0", None),
        ("redis://me@db:1/0", None),
        (f"redis://:{SECRET}x@db:1/0", f"{SECRET}x"),
    ],
)
def test_a_flag_names_the_store_whose_password_is_in_the_environment(
    flag: str, password: str | None
):
    """So the command line need not show it; another store is another store."""
    settings = load_settings(
        overrides={"store.url": flag}, environ={"NOVAWF_STORE_URL": f"redis://:{SECRET}@db:1/0"}
    )
    found = settings.store.password
    assert (None if found is None else found.get_secret_value()) == password


def test_the_values_of_named_variables_are_hidden():
    """The store's password too; a variable that nobody names is not."""
    forget_named()
    environ = {"NOVAWF_STORE_PASSWORD": SECRET, "MINE": "my-value", "OTHER": "other-value"}
    settings = load_settings(overrides={"audit.secret_env": ["MINE"]}, environ=environ)
    hide_secrets(settings, environ)
    assert mask(f"{SECRET} my-value other-value") == "*** *** other-value"
    forget_named()
