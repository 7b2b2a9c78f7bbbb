#!/bin/sh
"${CLAUDE_BIN:-claude}" -p "next"
