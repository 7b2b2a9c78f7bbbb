#!/usr/bin/env python3
import subprocess
import sys

for tool in (["ruff", "check"], ["mypy"]):
    done = subprocess.run([*tool, sys.argv[1] if len(sys.argv) > 1 else "."], capture_output=True)
    print(done.stdout.decode())
subprocess.run(["claude", "--version"], check=False)
subprocess.run("git log -1 | cat", shell=True)
subprocess.run(["grep", "-r", "claude -p", "."])
print("run: claude -p hello")
