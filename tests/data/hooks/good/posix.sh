#!/bin/sh -eu
if test "${1-}" = claude; then shift; fi
x=`date`
set -- a b c
while [ $# -gt 0 ]; do case $1 in a) shift;; *) break;; esac; done
exec true
