#!/bin/sh
git diff --name-only | xargs -n1 -I{} claude -p "review {}"
