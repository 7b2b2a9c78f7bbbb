#!/usr/bin/env bash
set -u
event=$(jq -r .hook_event_name)
case "$event" in
  Stop) exec "$(dirname "$0")/stop_notify.sh" ;;
  PostToolUse) exec "$(dirname "$0")/format.sh" ;;
  *) exit 0 ;;
esac
