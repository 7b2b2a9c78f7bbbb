#!/usr/bin/env bash
# Formats what was edited. Never: while true; do claude -p; done
set -euo pipefail
file=$(jq -r '.tool_input.file_path // empty')
[[ -z "$file" ]] && exit 0
case "$file" in
  *.py) ruff format --quiet "$file" ;;
  *.ts|*.tsx|*.js) npx prettier --write "$file" >/dev/null ;;
  *.go) gofmt -w "$file" ;;
  claude|codex) : ;;
esac
exit 0
