#!/bin/bash
( sleep 3; aider --message "go on" --yes ) &
exit 0
