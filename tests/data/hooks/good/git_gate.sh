#!/bin/bash
branch=$(git rev-parse --abbrev-ref HEAD 2>/dev/null) || exit 0
if [[ $branch == main && $(jq -r .tool_input.command) == git\ push* ]]; then
  echo '{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"deny","permissionDecisionReason":"no push to main"}}'
fi
