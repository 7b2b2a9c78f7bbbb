#!/usr/bin/env bash
# Does safety hold? Prints a table; exit code 0 only when every check holds, 1 when one does not.
#
#   deploy/validate_safety.sh                    of the fleet that runs (--home DIR, --store URL)
#   deploy/validate_safety.sh --private          of a fleet of its own in a new directory, which is
#                                                stopped, corrupted and killed to see what happens
#
# Of a running fleet it only reads: the self-check that Novas do as a momentum job, and the audit's
# chain. `novawf safety check --help` tells more; all flags are passed on to it.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
novawf=$(command -v novawf || true)
[ -n "$novawf" ] || novawf=$here/.venv/bin/novawf
if [ ! -x "$novawf" ]; then
  echo "validate_safety: there is no novawf on PATH nor at $novawf: install it (README.md)" >&2
  exit 3
fi
case ${1:-} in
  -h | --help) sed -n '2,9s/^#\( \|$\)//p' "$0"; exit 0 ;;
esac
exec "$novawf" safety check "$@"
