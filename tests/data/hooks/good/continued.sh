#!/bin/bash
printf '%s' \
  claude -p \
  "text"
git commit -m "use claude -p; exec \"\$0\"" \
  --quiet || true
{ echo a; echo b; } > /tmp/ab
( cd /tmp && ls ) | head -1
