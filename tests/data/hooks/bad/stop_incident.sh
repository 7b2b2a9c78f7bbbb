#!/usr/bin/env bash
# The incident: a stop hook that asks the agent to go on, and begins anew.
claude -p "continue with the next task" >> /tmp/stop.log 2>&1
sleep 1
exec "$0" "$@"
