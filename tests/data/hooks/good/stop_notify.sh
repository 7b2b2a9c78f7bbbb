#!/bin/sh
# tells that claude is done
if command -v notify-send >/dev/null; then
  notify-send "Claude Code" "claude -p has finished" &
fi
printf '\a'
