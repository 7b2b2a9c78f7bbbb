#!/bin/bash
while :
do
  sync_state
  sleep 1
done
