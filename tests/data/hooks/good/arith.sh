#!/bin/bash
count=$(( $(cat /tmp/count 2>/dev/null || echo 0) + 1 ))
(( count > 5 )) && { echo 0 > /tmp/count; exit 0; }
echo "$count" > /tmp/count
if (( count % 2 == 0 )); then echo even; elif [[ $count -lt 0 || -z "$count" ]]; then echo neg; else echo odd; fi
