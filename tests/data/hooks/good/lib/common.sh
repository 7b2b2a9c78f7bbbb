# Shared by hooks.
note() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*" >> "${HOOK_LOG:-/tmp/hook.log}"; }
usage() { echo "usage: $0 [claude|codex]"; }
