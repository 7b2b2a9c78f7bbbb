#!/bin/bash
if [ -z "${HOOK_LOCKED:-}" ]; then
  export HOOK_LOCKED=1
  exec flock -n /tmp/hook.lock "$0" "$@"
fi
date
