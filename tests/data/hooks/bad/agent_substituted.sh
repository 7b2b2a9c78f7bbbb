#!/bin/bash
summary="$(claude -p "Summarise: $(cat notes.md)")"
echo "$summary"
