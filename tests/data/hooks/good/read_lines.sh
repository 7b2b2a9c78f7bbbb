#!/bin/bash
while IFS= read -r line; do
  printf '%s\n' "$line" >> /tmp/lines
done < <(git diff --name-only)
while read -r a b; do echo "$a"; done <<< "$(ls)"
for f in *.md; do wc -l "$f"; done
for ((i = 0; i < 3; i++)); do echo "$i"; done
