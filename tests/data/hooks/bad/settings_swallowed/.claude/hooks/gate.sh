#!/bin/sh
grep -q rm && exit 2
exit 0
