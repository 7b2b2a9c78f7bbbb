#!/usr/bin/env python3
"""Turns down edits of lock files. Not: while True, os.execv(sys.argv[0]), claude -p."""
import json
import sys

data = json.load(sys.stdin)
path = data.get("tool_input", {}).get("file_path", "")
if path.endswith(("package-lock.json", "uv.lock")):
    print("Blocked: lock files are generated", file=sys.stderr)
    sys.exit(2)
