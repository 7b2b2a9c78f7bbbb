#!/bin/bash
trap 'claude -p "next"' EXIT
exit 0
