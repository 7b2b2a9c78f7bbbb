#!/bin/bash
input=$(cat)
cmd=$(echo "$input" | jq -r '.tool_input.command // ""')
if [[ "$cmd" =~ rm[[:space:]]+-rf[[:space:]]+/ ]]; then
  echo "Blocked: this would remove everything" >&2
  exit 2
fi
if ! command -v jq >/dev/null 2>&1; then
  echo "jq is needed" >&2
  exit 1
fi
exit 0
