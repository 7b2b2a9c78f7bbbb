#!/bin/bash
CMD="claude -p"
eval "$CMD 'go on'"
