#!/bin/bash
jq -n --arg c "$(git log --oneline -5)" '{hookSpecificOutput: {hookEventName: "SessionStart", additionalContext: $c}}'
