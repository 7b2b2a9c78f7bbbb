#!/bin/sh
cd "$(dirname "$0")" || exit 0
exec ./self_by_name.sh
