#!/bin/bash
command=$(jq -r .tool_input.command)
if echo "$command" | grep -q "rm -rf"; then
  echo "Blocked: rm -rf is dangerous" >&2
  exit 1
fi
exit 0
