#!/bin/bash
setsid nohup "$0" >/dev/null 2>&1 &
