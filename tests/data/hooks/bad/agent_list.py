#!/usr/bin/env python3
import subprocess

CLAUDE = "claude"
COMMAND = [CLAUDE, "-p"]
subprocess.run([*COMMAND, "go on"], check=False)
