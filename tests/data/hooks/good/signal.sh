#!/bin/bash
# Leaves a signal; the supervisor outside starts the agent.
mkdir -p "$HOME/.signals"
date +%s > "$HOME/.signals/restart"
novawf wake torch "session ended, restart claude" --priority high || true
novawf submit --executor claude --prompt "go on" || true
