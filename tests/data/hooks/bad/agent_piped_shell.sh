#!/bin/sh
echo 'claude -p "next"' | sh
