#!/bin/sh
while true; do
    date >> /tmp/alive
    sleep 5
done
