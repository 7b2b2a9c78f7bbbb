#!/bin/sh
. "$(dirname "$0")/inner.sh"
