#!/bin/bash
echo "next: claude -p 'go on'"
printf '%s\n' 'codex exec "x"' "aider --message hi"
echo 'exec "$0"'
logger -t hook claude -p was used
