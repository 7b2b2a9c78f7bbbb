#!/bin/bash
run=(claude -p --output-format json)
"${run[@]}" "next"
