#!/bin/bash
claude=1
codex="yes"
if [ "$claude" -eq 1 ] && [ "$codex" = yes ]; then
  echo "$claude $codex"
fi
claude_dir=$HOME/.claude
ls "$claude_dir" | grep claude || true
