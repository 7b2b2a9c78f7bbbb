#!/bin/bash
# Gives the agent its answer at once, and does the slow part behind it.
if [ "${1:-}" = worker ]; then
  rsync -a "$HOME/notes/" /backup/notes/
  exit 0
fi
nohup "$0" worker > /dev/null 2>&1 &
