#!/bin/bash
timeout 10 bash -c 'while true; do [ -e /tmp/ok ] && exit 0; sleep 0.5; done'
timeout 5 sh -c 'until nc -z localhost 80; do sleep 1; done'
