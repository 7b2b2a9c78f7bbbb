#!/bin/sh
while sleep 10; do curl -s localhost:9/ping; done
