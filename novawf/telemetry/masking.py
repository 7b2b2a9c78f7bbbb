"""Takes secrets out of what people read: logs, the audit, answers of commands, errors, reports.

Two kinds are known: forms (`sk-ant-…`, `Bearer …`, `password=…`, a key block …) and named values,
which whoever knows one gives to `hide` (the passwords of this process's stores are among them).
What is stored and what runs stays as it is: masking is for display, so it can be wrong without harm
to work. It is no fence: a secret in no known form, that nobody named, is shown.

Every pattern runs in linear time: quantifiers are bounded or possessive, and what begins a match
is short. Light: imported by every command.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from novawf.store.connect import PASSWORDS

MASK: Final = "***"
SHORTEST: Final = 4
"""Named values with fewer characters are not masked: `a` or `123` would be found everywhere."""
LONGEST_LINE: Final = 65_536
"""Bytes of a line that `MaskedStream` waits for the end of."""


class _Named:
    """The named values of this process."""

    values: tuple[str, ...] = ()
    """Longest first, so that one which contains another is masked whole. Replaced as a whole:
    other threads may be masking."""
    of_stores: frozenset[str] = frozenset()
    """Those passwords of stores that are among them."""


_named = _Named()

_FORMS: Final = re.compile(
    r"(sk-ant-)[\w-]{8,}+"
    r"|(?<![A-Za-z0-9])(sk-)(?:proj-|svcacct-|admin-|or-v1-)?+[\w-]{20,}+"
    r"|(?<![A-Za-z0-9])((?:sk|rk)_(?:live|test)_)[A-Za-z0-9]{16,}+"
    r"|(gh[opusr]_)[A-Za-z0-9]{20,}+"
    r"|(github_pat_)\w{20,}+"
    r"|(glpat-)[\w-]{20,}+"
    r"|(?<![A-Za-z0-9])(npm_|hf_)[A-Za-z0-9]{30,}+"
    r"|(?<![A-Za-z0-9])(AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|(AIza)[\w-]{30,}+"
    r"|(xox[abeoprs]-)[\w-]{10,}+"
    r"|(?<![\w-])(eyJ)[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+"
)
"""What providers give out; the group is what stays, so that one sees what it was."""

_IN_KEY: Final = r"[\w+/=\s\\:,.()*-]"
"""What a key block consists of, headers and written-out line ends included."""
_KEY_BLOCK: Final = re.compile(
    r"(-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)"
    rf"(?:(?!-----){_IN_KEY})*+(-----END [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----)?"
)
"""One without an end is masked as far as it can be one."""
_KEY_LINE: Final = re.compile(rf"{_IN_KEY}*+\Z")

_IN_URL: Final = re.compile(r"""(://[^\s/@:"'<>]{0,128}+:)([^\s/"'<>]{1,256})@""")

_HEADER: Final = re.compile(
    r"""((authorization["']?\s{0,3}[:=]\s{0,3}["']?[a-z]{1,12}\s{1,3})|(?<![a-z])bearer\s{1,3})"""
    r"([\w.~+/=:-]{6,}+)",
    re.IGNORECASE,
)

_NAME: Final = (
    r"password|passwd|passphrase|passwort|secret|token|api[ _-]?key|access[_-]?key|secret[_-]?key"
    r"|private[_-]?key|signing[_-]?key|encryption[_-]?key|auth[_-]?key|credentials?|_pass|pwd"
)
_PAIR: Final = re.compile(
    rf"({_NAME})"
    r"""(\\{0,3}["']?\s{0,3}(?:=>|:=|[:=])\s{0,3}|["']?\s{1,3}(?=["'\w/+.~]))"""
    r"""(?:("(?:[^"\\\n]|\\.)*+|'(?:[^'\\\n]|\\.)*+)"""
    r"""|(\\{1,3}["'])?((?:[^\s,;&"'\\}\])<>]|[,;](?=[^\s,;&"'\\}\])<>]))++))""",
    re.IGNORECASE,
)
"""Name, what stands between, and a value: quoted, or bare (after the quote of a text in a text)."""
_SECRET_NAME: Final = re.compile(rf"(?:{_NAME})\Z", re.IGNORECASE)
_FLAG: Final = re.compile(r"--?[\w-]{0,64}+\Z")
_LEFT: Final = re.compile(r"[\w.-]{0,64}\Z")

_PLACEHOLDER: Final = re.compile(
    r"\$[A-Z_][A-Z0-9_]*|\$[({].*|<[\w -]*>?|[\[({]+|\{\w*|\(hidden|%\(?\w*\)?s|[*.…-]*"
)
"""A reference to a value, or the beginning of something larger."""

_WORDS: Final = ("pass", "pwd", "secret", "token", "key", "credential")
_BEGINNINGS: Final = (
    "sk-", "sk_", "rk_", "gh", "github_pat_", "glpat-", "npm_", "hf_", "AKIA", "ASIA", "AIza",
    "xox", "eyJ",
)  # fmt: skip
"""Without one of these in a text, in lower case or as they are, the patterns need not be tried."""

_NAMES_A_FILE: Final = frozenset({"dashboard_token"})
"""Fields of ours that tell where a token is, not what it is."""

_SAYS_NOTHING: Final = frozenset(
    {
        "none", "null", "nil", "true", "false", "yes", "no", "on", "off", "unset", "empty",
        "missing", "required", "optional", "invalid", "wrong", "incorrect", "expired", "unknown",
        "refused", "denied", "rejected", "hidden", "is", "was", "are", "not", "the", "a", "an",
    }
)  # fmt: skip
"""Words after a colon that tell of a secret without being one."""


def hide(*values: str | None) -> None:
    """Mask these exact values from now on, in this process. Short ones are left: see `SHORTEST`."""
    known = set(_named.values)
    for value in values:
        if value is not None and len(value) >= SHORTEST:
            known |= {value, quote(value, safe="", errors="replace"), json.dumps(value)[1:-1]}
    _named.values = tuple(sorted(known, key=len, reverse=True))


def forget_named() -> None:
    """Hide no named values any more."""
    PASSWORDS.clear()
    _named.values, _named.of_stores = (), frozenset()


def mask(text: str) -> str:
    """`text` with its secrets replaced. Masking what is masked changes nothing."""
    if len(PASSWORDS) != len(_named.of_stores):
        of_stores = frozenset(PASSWORDS)
        hide(*of_stores)
        _named.of_stores = of_stores
    for value in _named.values:
        if value in text:
            text = text.replace(value, MASK)
    if any(beginning in text for beginning in _BEGINNINGS):
        text = _FORMS.sub(_form, text)
    if "PRIVATE KEY" in text:
        text = _KEY_BLOCK.sub(_block, text)
    if "://" in text:
        text = _IN_URL.sub(_url, text)
    lower = text.lower()
    if "bearer" in lower or "authorization" in lower:
        text = _HEADER.sub(_header, text)
    if any(word in lower for word in _WORDS):
        text = _PAIR.sub(_pair, text)
    return text


def mask_json(value: Any, name: str = "") -> Any:
    """The same for what becomes JSON: texts within it are masked, and whole values under a name
    that says so, `{"api_key": …}` or `["--token", …]`. `name` is what `value` stands under."""
    if isinstance(value, str):
        if value and name and _is_secret(name) and not _says_nothing(value):
            return MASK
        return mask(value)
    if isinstance(value, Mapping):
        inherited = name if name and _is_secret(name) else ""
        return {
            mask(key) if isinstance(key, str) else key: mask_json(
                inner, inherited or (key if isinstance(key, str) else "")
            )
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return _masked_list(value, name)
    return value


class MaskingFormatter(logging.Formatter):
    """Formats as its base does, exception texts included, and masks the whole."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return mask(super().format(record))


def mask_last_resort() -> None:
    """Mask what is logged in a process that has set up no logging: it goes to stderr."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(MaskingFormatter("%(message)s"))


class MaskedStream:
    """Masks output that comes in pieces, line by line: a secret may lie across two pieces, and a
    key block across many lines."""

    def __init__(self) -> None:
        self._held = b""
        self._in_key = False

    def feed(self, data: bytes) -> bytes:
        """What may be shown now; the line that has not ended is kept back."""
        held = self._held + data
        end = max(held.rfind(b"\n"), held.rfind(b"\r")) + 1
        if not end and len(held) > LONGEST_LINE:
            end = held.rfind(b" ") + 1 or len(held)
        self._held = held[end:]
        return self._masked(held[:end])

    def end(self) -> bytes:
        """What is left."""
        held, self._held = self._held, b""
        return self._masked(held)

    def _masked(self, data: bytes) -> bytes:
        text = data.decode("utf-8", "surrogateescape")
        if self._in_key:
            text = self._after_key(text)
        begun = text.rfind("-----BEGIN ")
        if begun >= 0 and (block := _KEY_BLOCK.match(text, begun)) and block[2] is None:
            self._in_key = block.end() == len(text)
        shown = mask(text)
        if self._in_key and text:
            shown += "\n"  # the mask took the line's end along
        return shown.encode("utf-8", "surrogateescape")

    def _after_key(self, text: str) -> str:
        """What comes after the lines of a key block that began before."""
        lines = text.splitlines(keepends=True)
        for number, line in enumerate(lines):
            if "-----END " in line or _KEY_LINE.match(line) is None:
                self._in_key = False
                return "".join(lines[number:])
        return ""


def _masked_list(values: Iterable[Any], name: str) -> list[Any]:
    """Of an argv what follows a flag that names a secret is one."""
    shown: list[Any] = []
    before = ""
    for value in values:
        shown.append(mask_json(value, before or name))
        is_flag = isinstance(value, str) and _FLAG.match(value) is not None
        before = value if is_flag and _is_secret(value) else ""
    return shown


def _is_secret(name: str) -> bool:
    return name not in _NAMES_A_FILE and _SECRET_NAME.search(name[-64:]) is not None


def _says_nothing(value: str) -> bool:
    """Whether a value is a placeholder, a reference, or masked by now."""
    bare = value.strip("\"'\\")
    return _PLACEHOLDER.fullmatch(bare) is not None or bare.lower().rstrip(".:!?)") in _SAYS_NOTHING


def _form(found: re.Match[str]) -> str:
    kept = found[found.lastindex or 0]
    # A name of many words is no key: keys have digits in them.
    if kept == "sk-" and not any(map(str.isdigit, found[0])):
        return found[0]
    return kept + MASK


def _block(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}{found[2]}"


def _url(found: re.Match[str]) -> str:
    if found[2].lower() == "password" or _says_nothing(found[2]):  # as examples have it
        return found[0]
    return f"{found[1]}{MASK}@"


def _header(found: re.Match[str]) -> str:
    value = found[3]
    if found[2] is None and value.isalpha() and len(value) < 16:  # `bearer certificates` is prose
        return found[0]
    return found[1] + MASK


def _pair(found: re.Match[str]) -> str:
    name, between, quoted, escaped, bare = found.groups()
    text, start, end = found.string, found.start(), found.end()
    before = _LEFT.search(text, max(0, start - 64), start)
    left = before[0] if before is not None else ""
    value: str = quoted or bare
    spaced = not between.strip("\\\"' \t\r\n")
    shown = (
        left + name in _NAMES_A_FILE
        or _says_nothing(value)
        # `the token of`: only a flag is followed by a space, and not by another flag.
        or (spaced and (not left.startswith("-") or value.startswith("-")))
        # A directory, or a count.
        or (name.lower() in ("pwd", "_pass") and (value.startswith("/") or value.isdigit()))
        or (bare is not None and "=" not in between and _is_prose(value, text, end))
    )
    if shown:
        return found[0]
    return f"{name}{between}{quoted[0] if quoted else escaped or ''}{MASK}"


def _is_prose(value: str, text: str, end: int) -> bool:
    """`password: give it by …`: a word of letters, and another word after it."""
    following = text[end : end + 2]
    return value.isalpha() and value.islower() and following[:1] == " " and following[1:].isalpha()
