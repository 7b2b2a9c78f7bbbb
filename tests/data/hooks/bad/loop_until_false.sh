#!/bin/sh
until false; do
  for f in a b; do
    [ -e "$f" ] && break
  done
done
