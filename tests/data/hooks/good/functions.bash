#!/usr/bin/env bash
claude() { echo "a function, not the program: $*"; }
function finish { rm -f "$tmp"; }
tmp=$(mktemp)
trap finish EXIT
trap 'rm -f "$tmp"' INT TERM
claude -p hello > "$tmp"
