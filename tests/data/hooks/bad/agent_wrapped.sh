#!/bin/bash
env ANTHROPIC_MODEL=x timeout --kill-after 5 60 nice -n 5 gemini -p "hi"
