#!/bin/bash
BIN=$(command -v claude || true)
"$BIN" --print "say hi"
