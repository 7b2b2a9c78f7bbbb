#!/bin/bash
payload=$(jq -c '{text: ("claude stopped in " + .cwd)}')
curl -s -m 5 -X POST -H 'Content-Type: application/json' -d "$payload" "$SLACK_URL" > /dev/null 2>&1 &
exit 0
