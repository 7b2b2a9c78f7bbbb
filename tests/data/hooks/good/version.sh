#!/bin/sh
claude --version > /dev/null 2>&1 || exit 0
V="$(claude --version | head -1)"
which codex >/dev/null && codex --version
gemini --help | head -3
echo "agent: $V"
