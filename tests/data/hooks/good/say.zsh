#!/bin/zsh
emulate -L zsh
setopt no_nomatch
local -a files=( *.zsh(N) )
for f in $files; do print -r -- $f; done
osascript -e 'display notification "claude is done" with title "Claude"' 2>/dev/null
exit 0
