#!/bin/bash
/usr/local/bin/codex exec --json "fix the tests"
