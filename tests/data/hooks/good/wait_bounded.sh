#!/bin/bash
n=0
while true; do
  if curl -fs http://localhost:8080/health; then break; fi
  n=$((n + 1))
  if [ "$n" -gt 10 ]; then
    exit 0
  fi
  sleep 0.2
done
until [ -e /tmp/ready ] || [ $((n++)) -gt 20 ]; do sleep 0.1; done
