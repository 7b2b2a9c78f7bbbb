#!/bin/zsh
here=${0%/*}
exec zsh "$here/$(basename "$0")"
