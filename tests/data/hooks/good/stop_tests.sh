#!/bin/bash
input=$(cat)
if [ "$(echo "$input" | jq -r .stop_hook_active)" = "true" ]; then exit 0; fi
if ! npm test --silent >/tmp/test.log 2>&1; then
  echo "Tests fail: fix them before you stop" >&2
  tail -20 /tmp/test.log >&2
  exit 2
fi
