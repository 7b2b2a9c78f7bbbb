#!/bin/bash
npm ls -g @anthropic-ai/claude-code >/dev/null || echo "npm install -g @anthropic-ai/claude-code"
npm install --silent --no-save @openai/codex
pip show aider-chat > /dev/null
type claude codex 2>/dev/null
