"""Secrets are found in the forms they have, ordinary text is left alone, and no text is slow."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novawf.store.connect import connect, parse_url
from novawf.telemetry import masking
from novawf.telemetry.masking import MASK, MaskedStream, MaskingFormatter, hide, mask, mask_json
from novawf.telemetry.supervisor_log import supervisor_log

KEY = "0aZ9" * 12
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0"
BLOCK = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nq83hZz+/==\n-----END RSA PRIVATE KEY-----"
)

SECRETS = {
    "anthropic": (f"key sk-ant-api03-{KEY} here", KEY),
    "openai": (f"sk-proj-{KEY}", KEY),
    "openai, old": (f"using sk-{KEY}.", KEY),
    "github, classic": (f"ghp_{KEY}", KEY),
    "github, app": (f"gho_{KEY}", KEY),
    "github, fine-grained": (f"github_pat_11ABC_{KEY}", KEY),
    "aws": ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    "google": (f"AIza{KEY}", KEY),
    "slack": ("xoxb-123456789012-abcdef", "123456789012-abcdef"),
    "jwt": (f"got {JWT} back", "eyJzdWIiOiIxMjM0NTY3ODkwIn0"),
    "bearer": ("Authorization: Bearer abc123.def", "abc123.def"),
    "basic": ("authorization: Basic dXNlcjpwdw==", "dXNlcjpwdw"),
    "key block": (f"before\n{BLOCK}\nafter", "MIIEpAIBAAKCAQEA7"),
    "key block in JSON": (json.dumps({"pem": BLOCK}), "q83hZz"),
    "URL": ("https://bot:hunter2@git.example/x.git", "hunter2"),
    "URL, only a password": ("redis://:hunter2@db:18000/0", "hunter2"),
    "pair": ("password=hunter2", "hunter2"),
    "pair with a colon": ("the password: hunter2", "hunter2"),
    "pair, quoted": ("db_password = 'correct horse', x", "correct horse"),
    "pair in YAML": ("api_key: a8f5", "a8f5"),
    "environment": ("OPENAI_API_KEY=a8f5 ./run", "a8f5"),
    "pair with a comma": ("PGPASSWORD=hunt,er2", "er2"),
    "pair in a URL": ("https://api.example/v1?access_token=a8f5&page=2", "a8f5"),
    "JSON": ('{"client_secret": "a8\\"f5", "n": 1}', "f5"),
    "JSON in JSON": (json.dumps(json.dumps({"token": "a8f5"})), "a8f5"),
    "Python": ("{'secret_key': 'a8f5'}", "a8f5"),
    "flag": ("deploy --token a8f5 --fast", "a8f5"),
    "flag with a sign": ("deploy --api-key=a8f5", "a8f5"),
    "flag, quoted": ("deploy --auth-token 'a 8 f5'", "8 f5"),
    "header": ("X-Auth-Token: a8f5", "a8f5"),
}

ORDINARY = [
    "TORCH-1760000000-00002a",
    "cf50ae53ed3fbea4fb2a244648b7b9d463488395",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "550e8400-e29b-41d4-a716-446655440000",
    "/root/.ray/auth_token",
    "/home/me/projects/api_keys/test_token.py",
    "the store refused the password; a password file is better",
    "password required",
    "token: unexpected end",
    "error: invalid token at line 3",
    "max_tokens=4096 and 1200 tokens: fine",
    "the store's password: give it by NOVAWF_STORE_PASSWORD",
    "expected redis://, e.g. redis://user:password@host:18000/0",
    "redis://user@db.example:18000/0",
    "unix:///root/.novawf/store/valkey.sock",
    "http://127.0.0.1:9464/metrics, see user@example.org",
    "PWD=/srv/novawf OLDPWD=/srv",
    "task-0123456789abcdef0123456789",
    "sk-learn-is-a-name-of-many-small-words",
    "a bearer certificates office",
    "GITHUB_TOKEN=$GITHUB_TOKEN",
    "api_key=${API_KEY}",
    "--password-file /etc/novawf/store.password",
    "store.password_file: /etc/x cannot be read: No such file",
    '{"sequence": 12, "prev": "0000", "token": null, "password": ""}',
    "ray::NovaActor.join pid 4711 died: SIGKILL",
    "cron 0 3 * * * Europe/Berlin",
    "2026-11-28T03:24:27.123Z",
]


@pytest.fixture(autouse=True)
def _nothing_named() -> Iterator[None]:
    masking.forget_named()
    yield
    masking.forget_named()


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_in_a_known_form_is_masked(kind: str) -> None:
    """What stays says that there was something."""
    text, secret = SECRETS[kind]
    assert secret in text
    assert secret not in mask(text)
    assert MASK in mask(text)


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    """A mask that hides ids and paths would be switched off."""
    assert mask(text) == text


@pytest.mark.parametrize("kind", SECRETS)
def test_the_text_around_a_secret_stays(kind: str) -> None:
    """One can still tell what was said."""
    text, _ = SECRETS[kind]
    shown = mask(f"first\n{text}\n!last!")
    assert shown.startswith("first\n")
    assert shown.endswith("!last!")


@given(st.lists(st.sampled_from([*(text for text, _ in SECRETS.values()), *ORDINARY, "\n", " "])))
def test_masking_twice_is_masking_once(parts: list[str]) -> None:
    """What is masked at several places on its way is not mangled."""
    once = mask("".join(parts))
    assert mask(once) == once


@given(st.text(), st.sampled_from([text for text, _ in SECRETS.values()]))
def test_any_text_is_taken(before: str, secret: str) -> None:
    """It raises for nothing."""
    mask(before + secret + before)


@pytest.mark.parametrize(
    "piece",
    [
        "a", "-", "_", "=", '"', "'", "\\", "\\\"", " ", "\n", "://", "://:@", "://a:", "eyJ",
        "eyJaaaaaaaaaa.", "sk-", "sk-ant-", "ghp_", "password", "password=", "password: ",
        "password='", 'token="\\', "token=,,", "--token ", "bearer ", "authorization: ",
        "-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n", "api key ",
    ],
)  # fmt: skip
def test_a_hostile_megabyte_takes_linear_time(piece: str) -> None:
    """Four times the text takes about four times as long: sixteen would be quadratic.

    Measured in the thread's own time, so that a busy machine does not count.
    """
    small, large = (piece * (size // len(piece)) for size in (250_000, 1_000_000))
    assert _cpu_s(large) < 8 * _cpu_s(small) + 0.2


def _cpu_s(text: str) -> float:
    began = time.thread_time()
    mask(text)
    return time.thread_time() - began


def test_named_values_are_masked_wherever_they_stand() -> None:
    """As they are, in a URL, and in JSON; the longer one first."""
    hide("p@ss/wörd", 'quo"ted', "p@ss/wörd-longer")
    assert mask("x p@ss/wörd-longer p@ss/wörd y") == "x *** *** y"
    assert "wörd" not in mask("redis://x?p=p%40ss%2Fw%C3%B6rd")
    assert "p%40ss" not in mask("p%40ss%2Fw%C3%B6rd")
    assert "quo" not in mask(json.dumps({"a": 'quo"ted'}))


def test_a_short_named_value_is_left() -> None:
    """A password `abc` would be found in every other word."""
    hide("abc", "", None)
    assert mask("abcdef abc") == "abcdef abc"


def test_the_password_of_a_store_that_was_connected_to_is_hidden() -> None:
    """No process need think of it."""
    connect(parse_url("redis://:wei-rd%40pw@127.0.0.1:1"))
    assert mask("it said wei-rd@pw twice: wei-rd@pw") == "it said *** twice: ***"


def test_json_is_masked_by_names_lists_and_forms() -> None:
    """Values under a name that says it, what follows a flag, and known forms anywhere."""
    document = {
        "env": {"API_KEY": "a8f5", "HOME": "/root", "N": 1},
        "argv": ["deploy", "--token", "a8f5", "--password=hunter2", "--verbose", "x"],
        "credentials": {"user": "me", "codes": ["a8f5"]},
        "dashboard_token": "/root/.ray/auth_token",
        "tokens": 500, "token": None, "text": f"ghp_{KEY}", f"ghp_{KEY}": True,
    }  # fmt: skip
    assert mask_json(document) == {
        "env": {"API_KEY": MASK, "HOME": "/root", "N": 1},
        "argv": ["deploy", "--token", MASK, "--password=***", "--verbose", "x"],
        "credentials": {"user": MASK, "codes": [MASK]},
        "dashboard_token": "/root/.ray/auth_token",
        "tokens": 500, "token": None, "text": "ghp_***", "ghp_***": True,
    }  # fmt: skip
    assert document["env"]["API_KEY"] == "a8f5"  # type: ignore[index]  # what is stored stays


def test_output_in_pieces_is_masked_as_a_whole() -> None:
    """Wherever the pieces end."""
    text = f"one\npassword=hunter2\ntwo {BLOCK}\nthree sk-ant-api03-{KEY}"
    for size in (1, 2, 3, 7, 20, 1000):
        stream, shown = MaskedStream(), b""
        data = text.encode()
        for start in range(0, len(data), size):
            shown += stream.feed(data[start : start + size])
        shown += stream.end()
        said = shown.decode()
        for secret in ("hunter2", "MIIE", "q83h", KEY):
            assert secret not in said, (size, said)
        for word in ("one\n", "two ", "-----END RSA PRIVATE KEY-----\n", "three sk-ant-***"):
            assert word in said, (size, said)


def test_output_that_begins_a_key_block_and_goes_on_otherwise_is_shown() -> None:
    """A source file that names the marker does not swallow the rest of the log."""
    stream = MaskedStream()
    stream.feed(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert stream.feed(b'def test(): assert "x" in y\n') == b'def test(): assert "x" in y\n'


def test_output_that_is_no_text_passes_unchanged() -> None:
    """Bytes that are no UTF-8 are the task's own."""
    stream = MaskedStream()
    assert stream.feed(b"\xff\xfe x\n") + stream.end() == b"\xff\xfe x\n"


def test_a_log_shows_no_secret_of_a_message_or_an_exception() -> None:
    """Exceptions quote what they were given."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(MaskingFormatter("%(message)s"))
    logger = logging.Logger("x")
    logger.addHandler(handler)
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        logger.exception("token %s", f"ghp_{KEY}")
    assert "hunter2" not in out.getvalue()
    assert KEY not in out.getvalue()
    assert "ValueError: password=***" in out.getvalue()


def test_the_supervisors_log_is_masked(tmp_path: Path) -> None:
    """What is logged, and what libraries print."""
    with supervisor_log(tmp_path / "log"):
        logging.getLogger("a").warning("password=hunter2")
        print("api_key=a8f5")
    text = (tmp_path / "log").read_text()
    assert "hunter2" not in text
    assert "a8f5" not in text
    assert text.count(MASK) == 2
