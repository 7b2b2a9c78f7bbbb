#!/bin/sh
$(which claude) -p "summarise" < "$1"
