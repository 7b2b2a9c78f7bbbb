#!/bin/bash
find /tmp -maxdepth 1 -name 'claude-*' -mmin +60 -exec rm -rf {} +
ls -t ~/.claude/logs 2>/dev/null | tail -n +50 | xargs -r -I{} rm -- ~/.claude/logs/{}
nohup rsync -a ~/.claude/ /backup/claude/ > /dev/null 2>&1 &
