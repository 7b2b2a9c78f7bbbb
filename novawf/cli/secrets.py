"""Keeps secrets out of the process list, and out of what commands show.

Whoever writes `--store redis://:password@host` has put a password where every user of the machine
can read it: a process's command line. It is taken back before anything else is done: the same
program is begun anew in the same process, with the URL in its environment (which only its owner can
read) and without the password on its command line. For the milliseconds until then it was there;
`NOVAWF_STORE_URL` or a password file never shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from novawf.audit.files import SECRET_ENV, directory_of, read_settings
from novawf.errors import InvalidConfig
from novawf.store.connect import parse_url
from novawf.telemetry.masking import hide, mask_last_resort

VARIABLE = "NOVAWF_STORE_URL"
_FLAG = "--store"
_OF_THE_STORE = (VARIABLE, "NOVAWF_STORE__URL")
_PASSWORDS = ("NOVAWF_STORE_PASSWORD", "NOVAWF_STORE__PASSWORD")


def keep_from_sight(arguments: Sequence[str]) -> None:
    """Begin this process anew if its command line shows the store's password; then, and else, mask
    what the environment names. `arguments` are the last ones of this process's command line."""
    environ = os.environ  # noqa: TID251 - read as a whole and handed on; nothing is decided by it
    moved = without_password(arguments)
    if moved is not None:
        shown, url = moved
        kept = sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]
        environment = {**environ, VARIABLE: url}
        environment.pop("NOVAWF_STORE__URL", None)  # the same setting: the flag wins over both
        os.execve(  # noqa: S606 - this very program, by its own path
            sys.executable, [sys.executable, *kept, *shown], environment
        )
    mask_last_resort()
    hide(*(environ.get(name) for name in _PASSWORDS))
    hide(*(_password_of(environ.get(name, "")) for name in _OF_THE_STORE))


def hide_named(home: Path, environ: Mapping[str, str] | None = None) -> None:
    """Mask the values of the variables that the last fleet of this home has named as secret."""
    variables = os.environ if environ is None else environ  # noqa: TID251 - as above
    names = read_settings(directory_of(home)).get("secret_env")
    known = names if isinstance(names, list) else SECRET_ENV
    hide(*(variables.get(str(name)) for name in known))


def without_password(arguments: Sequence[str]) -> tuple[list[str], str] | None:
    """The arguments with no password in a `--store`, and the URL that had one; None where none has.

    Of several the last counts, as it does for the commands. What follows `--` is not ours.
    """
    shown, url, last = list(arguments), None, None
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument.startswith(f"{_FLAG}="):
            prefix, given, place = f"{_FLAG}=", argument[len(_FLAG) + 1 :], index
        elif index and arguments[index - 1] == _FLAG:
            prefix, given, place = "", argument, index
        else:
            continue
        last = given
        if _password_of(given) is not None:
            shown[place] = prefix + parse_url(given).redacted()
            url = given
    if url is None or last is None:
        return None
    return shown, last if _password_of(last) is not None else url


def _password_of(url: str) -> str | None:
    try:
        return parse_url(url).password
    except InvalidConfig:  # it is refused in a moment, by a process that has done nothing yet
        return None
