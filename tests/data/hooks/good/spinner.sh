#!/bin/bash
( while true; do printf .; sleep 1; done ) &
spinner=$!
make -s build
kill "$spinner"
