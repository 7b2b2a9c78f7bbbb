#!/bin/bash
nohup claude --continue -p "go on" > /dev/null 2>&1 &
disown
exit 0
