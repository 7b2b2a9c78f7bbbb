"""The check of one command before it is run: only what runs away keeps it from that.

Slow to import (the rules and their parsers), so the guard keeps what it said.
"""

from __future__ import annotations

from collections.abc import Sequence

from novawf.hooks.agents import shell_text, unwrapped
from novawf.hooks.checking import Inspection, inspect_script, inspect_text
from novawf.hooks.fingerprint import CHECKER, fingerprint
from novawf.hooks.state import Checked


def inspect(argv: Sequence[str], script: str, home: str) -> Checked:
    """What speaks against running `argv`, whose script is `script` ('' where it has none)."""
    text = shell_text(unwrapped(argv))
    if text is not None:
        found = inspect_text(text, home)
    elif script:
        found = inspect_script(script, home)
    else:
        found = Inspection([], [])
    key = fingerprint(CHECKER, argv, sorted(set(found.files)))
    for finding in found.findings:
        if finding.runaway:
            where = f"{finding.path}:{finding.line}" if finding.path else "its command"
            return Checked(key, f"{where}: {finding.message}")
    return Checked(key, "")
