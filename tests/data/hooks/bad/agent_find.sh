#!/bin/bash
find . -name '*.todo' -exec claude -p "do {}" \;
