#!/bin/bash
exec 9> /tmp/hook.lock
flock -n 9 || exit 0
while getopts "ab:" opt; do
  case $opt in
    a) a=1 ;;
    b) b=$OPTARG ;;
    *) exit 1 ;;
  esac
done
while (( ${#queue[@]} > 0 )); do queue=("${queue[@]:1}"); done
