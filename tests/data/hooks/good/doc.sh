#!/bin/bash
cat <<EOF
Usage: run  claude -p "prompt"  or  exec "$0" by hand.
while true; do sleep 1; done   # as an example
EOF
cat <<'END' >> CLAUDE.md
    $(claude -p inner) is shown, not run
END
