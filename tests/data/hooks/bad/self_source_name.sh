#!/bin/bash
SELF="$(readlink -f "${BASH_SOURCE[0]}")"
sleep 2
"$SELF" &
