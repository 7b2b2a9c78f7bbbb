#!/bin/bash
npx --yes @anthropic-ai/claude-code@latest -p "hello"
