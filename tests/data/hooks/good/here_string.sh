#!/bin/bash
python3 - <<'PY'
import sys
print("claude -p in a text for python")
PY
cat <<-EOT
	indented: exec "$0"
	EOT
read -r first <<< "claude -p"
echo "$first" | cat
