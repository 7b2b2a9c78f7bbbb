#!/bin/sh
pgrep -f "claude -p" > /dev/null && echo running
ps aux | grep '[c]odex exec' | wc -l
pkill -0 -x aider || true
ls -d ~/.claude ./codex /opt/gemini 2>/dev/null
