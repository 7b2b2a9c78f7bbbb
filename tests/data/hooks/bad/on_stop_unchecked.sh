#!/bin/bash
if [ -s TODO.md ]; then
  echo '{"decision": "block", "reason": "there is more in TODO.md"}'
fi
