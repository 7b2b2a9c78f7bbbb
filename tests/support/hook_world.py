"""Hooks and agents as they meet: a home, a `novawf`, a fake `claude` that runs its Stop hook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from waiting import wait_until

from novawf.clock import boottime_ms
from novawf.hooks.state_files import HookFiles

MOST_SESSIONS = 30
"""The fake agent opens no more, should the guard fail: the machine of the tests survives it."""

_CLAUDE = """#!/bin/sh
case "$1" in --version) echo "9.9.9 (fake)"; exit 0;; esac
echo session >> "{log}/sessions"
[ "$(wc -l < "{log}/sessions")" -gt {most} ] && exit 9
echo '{{"hook_event_name": "Stop", "stop_hook_active": false}}' | \\
  "{bin}/novawf" hook run --home "{home}" {flags} -- "{hook}" >> "{log}/hook.out" 2>&1
echo "stop hook: $?" >> "{log}/ends"
"""


class HookWorld:
    """One test's home, programs and logs."""

    def __init__(self, root: Path, flags: str = "--cooldown 300") -> None:
        self.home, self.bin, self.log = root / "home", root / "bin", root / "log"
        self.hook = root / "project" / "stop.sh"
        for folder in (self.bin, self.log, self.hook.parent):
            folder.mkdir(parents=True)
        call = "from novawf.cli.entry import run; run()"
        self.novawf = self._program(
            self.bin / "novawf", f"#!/bin/sh\nexec '{sys.executable}' -c '{call}' \"$@\"\n"
        )
        self.set_flags(flags)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("NOVAWF_")},
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "NOVAWF_HOME": str(self.home),
            "LOG": str(self.log),
        }

    def set_flags(self, flags: str) -> None:
        """Those that the agent's settings give to `novawf hook run`."""
        text = _CLAUDE.format(
            log=self.log,
            bin=self.bin,
            home=self.home,
            hook=self.hook,
            flags=flags,
            most=MOST_SESSIONS,
        )
        self.claude = self._program(self.bin / "claude", text)

    def _program(self, path: Path, text: str) -> Path:
        draft = path.with_name(f".{path.name}.new")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(path)
        return path

    def write_hook(self, text: str) -> Path:
        """The Stop hook; it notes each of its executions."""
        return self._program(self.hook, f'#!/bin/bash\necho run >> "{self.log}/runs"\n{text}\n')

    def session(self) -> subprocess.CompletedProcess[str]:
        """The user starts the agent, and it ends."""
        return self.run([str(self.claude), "-p", "begin"])

    def run(self, argv: list[str], **more) -> subprocess.CompletedProcess[str]:
        """Run a command in this world."""
        return subprocess.run(
            argv, env=self.env, check=False, capture_output=True, text=True, timeout=60, **more
        )

    def guarded(self, *argv: str, flags: tuple[str, ...] = (), **more):
        """Run a hook under guard."""
        return self.run([str(self.novawf), "hook", "run", *flags, "--", *argv], **more)

    def status(self) -> list[dict]:
        """As `novawf hook status` has it."""
        return json.loads(self.run([str(self.novawf), "hook", "status", "--json"]).stdout)["hooks"]

    def lines(self, name: str) -> int:
        """How many lines a log has."""
        path = self.log / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    def alerts(self) -> list[dict]:
        """All that were written."""
        path = self.home / "hooks" / "alerts.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def shorten_cooldown(self, left_ms: int) -> None:
        """Of the one hook there is: five minutes are too long for a test."""
        files = HookFiles(str(self.home))
        state = files.read(files.paths()[0])
        assert state is not None and state.shut is not None
        with files.hold(state.name, state.nova) as held:
            until_ms = boottime_ms() + left_ms
            held.write(state._replace(shut=state.shut._replace(until_ms=until_ms)))

    def left(self) -> list[int]:
        """Processes of this world that still run."""
        stamp = f"LOG={self.log}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and stamp in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def wait_until_quiet(self) -> None:
        """Until nothing of this world runs."""
        wait_until(lambda: not self.left(), 20.0, "the end of all processes")
