#!/bin/sh
# needs bash
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@"
arr=(1 2 3)
echo "${arr[@]}"
