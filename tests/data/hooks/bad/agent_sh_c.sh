#!/bin/bash
sh -c 'cd /tmp && claude -p "again"'
