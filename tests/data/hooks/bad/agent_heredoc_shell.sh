#!/bin/bash
bash <<'EOF'
cd /tmp
claude -p next
EOF
