#!/bin/bash
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec bash -x "$HERE/self_by_directory.sh" again
