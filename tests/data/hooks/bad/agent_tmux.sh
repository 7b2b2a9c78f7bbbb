#!/bin/bash
tmux new-session -d -s next "claude -p 'go on'"
