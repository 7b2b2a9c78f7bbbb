#!/bin/bash
msg="he said \"claude -p\" and 'exec $0'; while true; do :; done"
sh -c 'echo "$1" | tr a-z A-Z' _ "$msg"
awk '{ print $0 }' <<< "$msg"
sed -e 's/claude -p/X/' -e "s/$0/Y/" <<< "$msg"
python3 -c 'print("while True: claude")'
